"""An image that is being built: its layers and its configuration so far."""

from __future__ import annotations

import calendar
import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

from images.recipes import settings
from images.recipes.steps import Action, Cmd, Entrypoint, Stored
from images.store import store
from images.store.image import Layer, architecture

BEGINNING_S = 315_532_800  # 1980-01-01, the oldest time in zip files; for files without a time
_KEPT = ("author", "variant", "os.version", "os.features")


class State:
    """A stage, as far as it has come."""

    def __init__(
        self, layers: Sequence[Layer] = (), document: Mapping[str, Any] | None = None, *, epoch_s: int | None = None
    ) -> None:
        document = document or {}
        self.layers = tuple(layers)
        self.settings: settings.Settings = copy.deepcopy(document.get("config") or {})
        self.epoch_s = epoch_s if epoch_s is not None else seconds(document.get("created") or "")
        self.arguments: dict[str, str] = {}  # of the build, as far as they are declared and have a value
        self.name = ""  # the hidden image of the store with these layers; empty: not stored yet
        self._kept = {key: document[key] for key in _KEPT if key in document}
        self._history: list[dict[str, Any]] = _history(document, len(self.layers))
        self._has_cmd = False  # its own CMD, not the base's

    def lookup(self, name: str) -> str | None:
        """Return a variable's value: the image's environment hides the build's arguments."""
        value = settings.variable(self.settings, name)
        return self.arguments.get(name) if value is None else value

    def apply(self, action: Action) -> None:
        """Take a step that changes the configuration. Raises ValueError."""
        if isinstance(action, Stored) and action.key == "Maintainer":
            self._kept["author"] = action.value
            return
        self.settings = settings.applied(self.settings, action)
        if isinstance(action, Entrypoint) and not self._has_cmd:
            self.settings.pop("Cmd", None)  # the base's arguments were for the base's entrypoint
        self._has_cmd = self._has_cmd or isinstance(action, Cmd)

    def note(self, text: str, *, layer: Layer | None = None) -> None:
        """Add a layer, or none, and what it came from to the history."""
        if layer is not None:
            self.layers = (*self.layers, layer)
        empty = {} if layer is not None else {"empty_layer": True}
        self._history.append({"created": store.timestamp(self.epoch_s), "created_by": text, **empty})

    def document(self) -> dict[str, Any]:
        """Return the OCI image configuration."""
        return {
            **self._kept,
            "created": store.timestamp(self.epoch_s),
            "architecture": architecture(),
            "os": "linux",
            "config": {key: value for key, value in self.settings.items() if value not in ("", [], {}, None)},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in self.layers]},
            "history": self._history,
        }

    def copied(self) -> State:
        """Return a copy for a stage that is built on this one."""
        other = State(self.layers, self.document(), epoch_s=self.epoch_s)
        other.name = self.name
        return other


def seconds(created: str) -> int:
    """Return the seconds since the epoch of an RFC 3339 time; those of 1980 for an invalid time."""
    try:
        parsed = calendar.timegm(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return BEGINNING_S
    return max(parsed, BEGINNING_S)


def _history(document: Mapping[str, Any], layers: int) -> list[dict[str, Any]]:
    """Return the history of a base; one line per layer if it is empty, since each layer needs one."""
    known = copy.deepcopy(document.get("history") or [])
    if sum(not line.get("empty_layer") for line in known) == layers:
        return known
    return [{"created": document.get("created") or "", "created_by": "unknown"} for _ in range(layers)]
