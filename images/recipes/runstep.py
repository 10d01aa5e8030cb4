"""RUN: a command in a container on the image so far; what it changed becomes a layer."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from images.layer import changes, layers, lookup
from images.store import store
from images.store.image import Layer
from images.store.staging import Stage
from vmctl import backends, engine, instance, paths
from vmctl.backend import Attachment, HasWritable, Writable
from vmctl.errors import NotFoundError, VmctlError
from vmctl.linux.locks import folder_locked, remove_unheld
from vmctl.workload import Workload

MODE = "container"
_NAME = r"build-[0-9a-f]{12}"
_TAIL_LINES = 20
_YOUNG_S = 3.0  # an instance of that age may be one that its maker is about to take hold of

Hear = Callable[[bytes], None]


class Command(NamedTuple):
    """What to run."""

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str
    network: str


class StepFailedError(VmctlError):
    """A command ended with a code other than 0."""


def name_of(key: str) -> str:
    """Return the name of a step's instance, which is also what it sees as its host's name: the same in each build."""
    return f"build-{key[:12]}"


def run(stage: Stage, image: str, command: Command, name: str, newest_ns: int, hear: Hear) -> Layer | None:
    """Run a command on an image of the store and return the layer of its changes, in the stage; None without any.

    What it writes goes to `hear`. Raises StepFailedError with the end of its output.
    """
    work = Workload(
        name=name,
        image=image,
        command=command.argv,
        env=command.env,
        workdir=command.workdir,
        user=command.user or None,
        network=command.network,  # type: ignore[arg-type]
    )
    found = store.find(image)
    backend = backends.load(MODE)
    with _Listener(hear) as listener, engine.running(work, backend, Attachment(listener.streams)) as start:
        listener.start()
        result = start.attend()
        listener.finish()
        if result.code != 0:
            why = ": it was killed for want of memory" if result.source == "oom" else ""
            raise StepFailedError(f"ended with code {result.code}{why}", detail=listener.tail())
        with backends.ability(backend, HasWritable).writable(start.inst, pause=False) as writable:
            own = changes.own(found.layers, writable)
            if not _changed(found.layers, writable, own):
                return None
            return layers.from_folder(stage, writable.folder, overlay=True, newest_ns=newest_ns, skip=own)


def _changed(below: Sequence[Layer], writable: Writable, own: frozenset[str]) -> bool:
    """Return whether anything is in the upper folder, or it differs from the root it stands for."""
    if any(entry.name not in own for entry in os.scandir(writable.folder)):
        return True
    status, root = os.stat(writable.folder), lookup.find(below, "/")
    assert root is not None
    known = root.attributes
    return (status.st_mode, status.st_uid, status.st_gid) != (known.mode, known.uid, known.gid)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other build is at the step whose instance has that name, and keep others out."""
    with folder_locked(os.path.join(paths.run_root(), name)):
        if name in instance.names():  # of a build that was killed
            engine.rm(name, force=True)
        yield


def remove_abandoned() -> None:
    """Remove the instances and locks of builds that were killed."""
    with suppress(FileNotFoundError):
        for name in filter(re.compile(_NAME).fullmatch, os.listdir(paths.run_root())):
            remove_unheld(os.path.join(paths.run_root(), name))
    for name in instance.names():
        with suppress(NotFoundError):
            if not re.fullmatch(_NAME, name):
                continue
            inst = instance.load(name)
            if inst.work.image.startswith(".") and not inst.busy() and time.time() - inst.state.created > _YOUNG_S:
                engine.rm(name, force=True)


class _Listener:
    """The streams of a command: nothing to read, and a pipe for both outputs, which a thread reads."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._lines: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._rest = b""

    def __enter__(self) -> _Listener:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._read, write = os.pipe()
        self._ends = [null, write]
        os.fchmod(write, 0o622)  # whoever the command is, it may open /dev/stdout
        self.streams = null, write, write
        self._thread: threading.Thread | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        os.close(self._read)

    def start(self) -> None:
        """Begin to read; only now, since a thread would not have come along into the container's first process."""
        self._close_ends()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Read to the end, which is there when the command's last process is gone."""
        self._close_ends()
        if self._thread is not None:
            self._thread.join()

    def tail(self) -> str:
        """Return the last lines."""
        return b"\n".join([*self._lines, self._rest] if self._rest else self._lines).decode(errors="replace")

    def _close_ends(self) -> None:
        while self._ends:
            os.close(self._ends.pop())

    def _listen(self) -> None:
        while data := os.read(self._read, 1 << 16):
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(lines)
            self._rest = self._rest[-4096:]
            with suppress(OSError):  # whoever listened is gone: the command must not wait for it
                self._hear(data)
