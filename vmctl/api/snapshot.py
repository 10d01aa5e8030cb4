"""Snapshots and clones, as a program has them in its hands."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from vmctl.api.client import Call, ask
from vmctl.api.instance import Instance


class Snapshot:
    """What instances can be started from. As a context manager it is removed at the end of the block."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.name: str = values["name"]
        self.id: str = values["id"]
        self.mode: str = values["mode"]
        self.size_bytes: int = values["size_bytes"]
        self.seconds: float = values["seconds"]  # that it took
        self.pause_seconds: float = values["pause_seconds"]  # for so long the instance was paused
        self.left_out: tuple[str, ...] = tuple(values["left_out"])  # what clones do not have: a sentence each

    def __repr__(self) -> str:
        return f"<vmctl.Snapshot {self.name} in mode {self.mode}>"

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def clone(
        self, *, name: str | None = None, free_ports: bool = False, wait: bool = True, keep: bool = False
    ) -> Instance:
        """Start one clone and return it once it is ready. Raises ConflictError if its name is taken."""
        return self.clones(1, name=name, free_ports=free_ports, wait=wait, keep=keep)[0]

    def clones(
        self,
        count: int,
        *,
        jobs: int | None = None,
        name: str | None = None,
        free_ports: bool = False,
        wait: bool = True,
        keep: bool = False,
    ) -> Clones:
        """Start clones, `jobs` at a time (default: one per processor), and return all of them once they are ready.

        They are called NAME-1, NAME-2 and so on; without a name, so that several threads can do it at the same time,
        after the snapshot and a random number. With `free_ports` each publishes the ports of the snapshot at free
        ones of the host. Raises the errors of `vmctl clone`; then none of them is left.
        """
        found: list[Instance] = []
        given: dict[str, Any] = {"snapshot": self.name, "count": count, "jobs": jobs}
        given["name"] = name or f"{self.name[:50]}-{os.urandom(4).hex()}"
        call = Call("clones", {**given, "free_ports": free_ports, "wait": wait, "keep": keep})
        try:
            call.result(lambda _, values: found.append(Instance(values, keep=keep)))
        except BaseException:
            Clones(found).remove()
            raise
        return Clones(sorted(found, key=lambda inst: (len(inst.name), inst.name)))

    def remove(self) -> None:
        """Remove it. Raises StateError while clones of it exist."""
        ask("remove_snapshot", snapshot=self.name)


class Clones(Sequence[Instance]):
    """Clones of one snapshot, in the order of their names; as a context manager all are removed at the end."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        self._instances = list(instances)

    @overload
    def __getitem__(self, index: int) -> Instance: ...

    @overload
    def __getitem__(self, index: slice) -> list[Instance]: ...

    def __getitem__(self, index: int | slice) -> Instance | list[Instance]:
        return self._instances[index]

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances)

    def __enter__(self) -> Clones:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove all that are not kept."""
        calls = [Call("remove", inst.key) for inst in self._instances if not inst.kept]
        for call in calls:
            call.result()


def find(name: str) -> Snapshot:
    """Return the snapshot of a name. Raises NotFoundError."""
    return Snapshot(ask("find_snapshot", snapshot=name))
