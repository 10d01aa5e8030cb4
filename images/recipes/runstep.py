"""RUN: a command in a container of the current image; the files that it changes become a layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from images.layer import changes, layers, lookup
from images.recipes.mounting import Made
from images.store import store
from images.store.image import Layer
from images.store.staging import Stage
from vmctl.spec.workload import Workload
from vmctl.writable import Writable

OnOutput = Callable[[bytes], None]


class Command(NamedTuple):
    """The command of a RUN step."""

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str
    network: str


class Runner(Protocol):
    """Runs the commands of RUN steps; it is implemented outside of the image store, which knows no instances."""

    def run(self, work: Workload, on_output: OnOutput) -> AbstractContextManager[Writable]:
        """Run a workload to its end and yield its writable layer. Raises VmctlError with its last output."""

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of the step of this name, and remove the instance of a killed build."""

    def remove_abandoned(self) -> None:
        """Remove the instances and locks of killed builds."""


def name_of(key: str) -> str:
    """Return the name of a step's instance, which is also its host name: the same in each build."""
    return f"build-{key[:12]}"


def run(
    runner: Runner,
    stage: Stage,
    image: str,
    command: Command,
    mounts: Made,
    name: str,
    newest_ns: int,
    on_output: OnOutput,
) -> Layer | None:
    """Run a command on an image of the store and return the layer of its changes, None if it has changed nothing.

    The layer is in the stage. Output of the command is passed to `on_output`. Raises the errors of the runner.
    """
    work = Workload(
        name=name,
        image=image,
        command=command.argv,
        entrypoint=(),
        env=command.env,
        workdir=command.workdir,
        user=command.user or None,
        network=command.network,
        volumes=mounts[0],
        tmpfs=mounts[1],
    )
    found = store.find(image)
    with runner.run(work, on_output) as writable:
        own = changes.own(found.layers, writable, folders=True)
        if not _changed(found.layers, writable, own):
            return None
        return layers.from_folder(stage, writable.folder, overlay=True, newest_ns=newest_ns, skip=own)


def _changed(below: Sequence[Layer], writable: Writable, own: frozenset[str]) -> bool:
    """Return whether the upper folder has entries, or its attributes differ from those of the image's root."""
    if any(entry.name not in own for entry in os.scandir(writable.folder)):
        return True
    status, root = os.stat(writable.folder), lookup.find(below, "/")
    assert root is not None
    known = root.attributes
    return (status.st_mode, status.st_uid, status.st_gid) != (known.mode, known.uid, known.gid)
