"""The configuration of an image: the OCI document (image-spec, config.md), and the part of it that is used here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from images.store.image import ImageConfig, Layer, architecture
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# settings of a configuration that have an effect here; Labels are only for people, and nobody expects more of them
_USED = (
    *("Entrypoint", "Cmd", "Env", "WorkingDir", "User", "StopSignal", "StopTimeout", "ExposedPorts", "Volumes"),
    *("Labels", "Shell", "OnBuild", "ArgsEscaped", "Healthcheck"),
)


def config_document(
    layers: Sequence[Layer], config: ImageConfig, created: str, history: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the OCI image configuration of an image that vmctl makes."""
    settings: dict[str, Any] = {
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "Env": config.env,
        "WorkingDir": config.workdir,
        "User": config.user,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout_s,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Volumes": {volume: {} for volume in config.volumes},
        "Labels": dict(config.labels),
        "Healthcheck": dict(config.healthcheck),
    }
    return {
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {key: value for key, value in settings.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        **({"history": list(history)} if history else {}),
    }


def read_config(document: Mapping[str, Any]) -> ImageConfig:
    """Return the settings of the process to run from an OCI image configuration."""
    settings = document.get("config") or {}
    return ImageConfig(
        entrypoint=tuple(settings.get("Entrypoint") or ()),
        cmd=tuple(settings.get("Cmd") or ()),
        env=tuple(settings.get("Env") or ()),
        workdir=settings.get("WorkingDir") or "",
        user=settings.get("User") or "",
        stop_signal=settings.get("StopSignal") or "",
        stop_timeout_s=seconds if isinstance(seconds := settings.get("StopTimeout"), int) else None,
        exposed_ports=tuple(settings.get("ExposedPorts") or ()),
        volumes=tuple(settings.get("Volumes") or ()),
        labels=settings.get("Labels") or {},
        healthcheck=check if isinstance(check := settings.get("Healthcheck"), dict) else {},
    )


def only_stored(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings of a configuration that are only kept for other tools: they have no effect on a workload."""
    return sorted(key for key, value in settings.items() if value and key not in _USED)


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch in the form of RFC 3339, as `created` has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
