"""Records of vmctl 0.1: arrays without names, in the order of the keys of that version."""

from __future__ import annotations

from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError

if TYPE_CHECKING:
    from typing import Any

KEYS = {
    "workload": "name image command env workdir user files ports volumes resources ready restart network init vm"
    " container",
    "files": "path content mode",
    "ports": "address host_port port protocol",
    "volumes": "source target read_only",
    "resources": "cpus memory_bytes pids disk_bytes",
    "ready": "http tcp log exec timeout_s",
    "http": "port path",
    "restart": "policy max_retries",
    "vm": "boot kernel cloud_init",
    "container": "cap_add cap_drop seccomp userns",
}
_LISTS = ("files", "ports", "volumes")


def workload(values: list[Any], what: str) -> dict[str, Any]:
    """Return the keys and values of a workload. Raises UnreadableError if the array is not that of a workload."""
    return _named("workload", values, what)


def _named(kind: str, values: Any, what: str) -> dict[str, Any]:
    keys = KEYS[kind].split()
    if not isinstance(values, list) or len(values) > len(keys):
        raise UnreadableError(f"{what} is damaged: expected {len(keys)} values for {kind}")
    return {
        key: _value(key, value, what) for key, value in zip(keys, values, strict=False)
    }  # an older array lacks newer keys


def _value(key: str, value: Any, what: str) -> Any:
    if key in _LISTS and isinstance(value, list):
        return [_named(key, item, what) for item in value]
    return _named(key, value, what) if key in KEYS and isinstance(value, list) else value
