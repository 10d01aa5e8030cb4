"""Run the commands of image builds, each in a separate container, and read the container's writable layer."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vmctl import backends, engine, paths
from vmctl.backend import Attachment, Exit, HasWritable
from vmctl.errors import NotFoundError, VmctlError
from vmctl.instances import instance
from vmctl.linux.locks import folder_locked, remove_unheld
from vmctl.spec.workload import Workload
from vmctl.survey import survey
from vmctl.writable import Writable

MODE = "container"
_NAME = r"build-[0-9a-f]{12}"
_TAIL_LINES = 20
_YOUNG_S = 3.0  # a younger instance may not be locked yet by the command that has created it


class StepFailedError(VmctlError):
    """A command exited with a code other than 0."""


class StepRunner:
    """See images.recipes.runstep.Runner."""

    @contextmanager
    def run(self, work: Workload, on_output: Callable[[bytes], None]) -> Iterator[Writable]:
        """Run a workload to its end and yield its writable layer. Raises StepFailedError with its last output."""
        backend = backends.load(MODE)
        with _Output(on_output) as output, engine.running(work, backend, Attachment(output.streams)) as start:
            output.start()
            result = start.attend()
            output.finish()
            if result.code != 0:
                raise _failed(work, result, output.tail())
            with backends.ability(backend, HasWritable).writable(start.inst, pause=False) as writable:
                yield writable

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold the lock of the step of this name, so that only one build at a time runs it."""
        with folder_locked(os.path.join(paths.run_root(), name)):
            if name in instance.names():  # left by a build that was killed
                engine.rm(name, force=True)
            yield

    def remove_abandoned(self) -> None:
        """Remove the instances and locks of builds that were killed."""
        with suppress(FileNotFoundError):
            for name in filter(re.compile(_NAME).fullmatch, os.listdir(paths.run_root())):
                remove_unheld(os.path.join(paths.run_root(), name))
        for seen in survey():
            inst = seen.instance
            if inst is None or not re.fullmatch(_NAME, seen.name) or not inst.work.image.startswith("."):
                continue
            with suppress(NotFoundError):
                if not inst.busy() and time.time() - inst.state.created > _YOUNG_S:
                    engine.rm(seen.name, force=True)


def _failed(work: Workload, result: Exit, tail: str) -> StepFailedError:
    from vmctl import stepnetwork

    why = ": it ran out of memory and was killed by the kernel (OOM)" if result.source == "oom" else ""
    return StepFailedError(f"ended with code {result.code}{why}", hint=stepnetwork.hint(work, tail), detail=tail)


class _Output:
    """The streams of a command: an empty input, and a pipe for both outputs, which a thread reads."""

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self._on_output = on_output
        self._lines: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._rest = b""

    def __enter__(self) -> _Output:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._read, write = os.pipe()
        self._ends = [null, write]
        os.fchmod(write, 0o622)  # a command of any user can open /dev/stdout
        self.streams = null, write, write
        self._thread: threading.Thread | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        os.close(self._read)

    def start(self) -> None:
        """Start the reading thread; not earlier, because the container's first process is a copy without threads."""
        self._close_ends()
        self._thread = threading.Thread(target=self._read_output, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Read to the end of the output, which comes when the command's last process has exited."""
        self._close_ends()
        if self._thread is not None:
            self._thread.join()

    def tail(self) -> str:
        """Return the last lines."""
        return b"\n".join([*self._lines, self._rest] if self._rest else self._lines).decode(errors="replace")

    def _close_ends(self) -> None:
        while self._ends:
            os.close(self._ends.pop())

    def _read_output(self) -> None:
        while data := os.read(self._read, 1 << 16):
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(lines)
            self._rest = self._rest[-4096:]
            with suppress(OSError):  # the output cannot be written any more, but the command must not block
                self._on_output(data)
