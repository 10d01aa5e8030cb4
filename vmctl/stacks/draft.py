"""A workload in the making: its keys, and from which place of the stack file each one comes, for errors."""

from __future__ import annotations

import re
from typing import Any

from vmctl.errors import SpecError
from vmctl.spec import workloadfile
from vmctl.spec.scalars import key_of
from vmctl.spec.workload import Workload
from vmctl.stacks.item import Place

_KEYS = frozenset(map(key_of, Workload._fields))


class Draft:
    """The document of a workload file, which is filled key by key."""

    def __init__(self, service: Place) -> None:
        self.service = service
        self.document: dict[str, Any] = {}
        self.places: dict[str, Place] = {}

    def set(self, path: str, value: Any, place: Place) -> None:
        """Set a key such as `resources.memory`. Raises SpecError for a key that workloads do not have."""
        first, *rest = path.split(".")
        if first not in _KEYS:
            raise place.error("it is not available in this version of vmctl")
        holder = self.document
        for part in (first, *rest)[:-1]:
            holder = holder.setdefault(part, {})
        holder[(first, *rest)[-1]] = value
        self.places[path] = place

    def add(self, path: str, value: Any, place: Place) -> None:
        """Append to a list."""
        if path not in self.document:
            self.set(path, [], place)
        self.document[path].append(value)
        self.places[f"{path}[{len(self.document[path]) - 1}]"] = place

    def workload(self) -> Workload:
        """Return the workload. Raises SpecError, with the place of the key that is wrong."""
        try:
            return workloadfile.convert(self.document)
        except SpecError as error:
            raise self._located(error) from None

    def _located(self, error: SpecError) -> SpecError:
        found = re.fullmatch(r"(?s)the key ([^\s:]+)(?:: | )(.*)", str(error))
        if not found:
            return self.service.error(str(error), error.hint)
        path = found[1]
        while path and path not in self.places:
            path = re.sub(r"(\.[^.\[]*|\[\d*\]|^[^.\[]*)$", "", path)
        place = self.places.get(path, self.service)
        for part in re.findall(r"[^.\[\]]+|\[\d+\]", found[1][len(path) :]):
            place = place.below(part)
        return place.error(f"the key {found[2]}" if found[2].startswith("is ") else found[2], error.hint)
