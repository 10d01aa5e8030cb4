"""What a test asks for: a workload, its mode, and how it is prepared before the snapshot is taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MARKER = "vmctl"
_OF_PLUGIN = ("mode", "prepare", "stop")


class Description(NamedTuple):
    """One golden snapshot. Equal descriptions share one."""

    keys: Mapping[str, Any]  # of a workload file
    mode: str | None = None
    prepare: Callable[[Any], object] | None = None  # called with the instance that the snapshot is taken of
    stop: bool | None = None  # whether that is stopped first; None: if the snapshot has no processes anyway

    @property
    def image(self) -> str:
        """The image, for errors and names."""
        return str(self.keys.get("image"))

    def digest(self, mode: str) -> str:
        """Return 12 hex digits that two descriptions share only if they have the same golden snapshot in a mode."""
        import hashlib

        parts = [mode, self.stop, dict(self.keys), _identity(self.prepare)]
        text = json.dumps(parts, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def described(image: str | None = None, **given: Any) -> Description:
    """Return the description of these arguments of the marker. Raises ValueError with the reason."""
    keys = {key: value for key, value in given.items() if key not in _OF_PLUGIN}
    if "name" in keys:
        raise ValueError("name: the plugin names instances itself, after session, worker and number")
    try:
        json.dumps(keys)
    except (TypeError, ValueError):
        raise ValueError("expected texts, numbers and lists for the keys of a workload, as in its file") from None
    if isinstance(ports := keys.get("ports"), list | tuple):
        keys["ports"] = [str(port) for port in ports]
    if isinstance(vm := keys.get("vm", {}), dict):  # a guest that is saved with its memory has to be started for that
        keys["vm"] = {"warm": "auto", **vm}
    if not image:
        raise ValueError('no image is named, such as vmctl(image="tiny")')
    own = {key: given[key] for key in _OF_PLUGIN if given.get(key) is not None}
    if not callable(own.get("prepare", print)):
        raise ValueError(f"prepare: expected a function of the instance, got {own['prepare']!r}")
    return Description({"image": image, **keys}, **own)


def of_markers(markers: list[Any]) -> Description | None:
    """Return the description of the markers of a test, closest last, or None without one. Raises ValueError.

    A marker of the test wins over one of its class or module, key by key.
    """
    merged: dict[str, Any] = {}
    for marker in markers:
        if len(marker.args) > 1:
            raise ValueError(f"expected an image and keys of a workload, got {marker.args!r}")
        merged.update({"image": marker.args[0]} if marker.args else {}, **marker.kwargs)
    return described(**merged) if merged else None


def _identity(function: Callable[..., object] | None) -> list[str]:
    """Return texts that identify a function and what it has captured, the same in each worker if possible.

    A value whose text has its address differs from worker to worker; then each makes a snapshot.
    """
    if function is None:
        return []
    import inspect

    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = repr(function)
    captured = [repr(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    defaults = repr(getattr(function, "__defaults__", None))
    return [str(getattr(function, "__module__", "")), source, defaults, *captured]
