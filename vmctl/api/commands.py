"""Commands in an instance: their output as it comes, and what they have returned."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from vmctl.api import wire
from vmctl.api.client import GRACE_S, Call
from vmctl.errors import DeadlineError, SpecError, VmctlError

if TYPE_CHECKING:
    from vmctl.api.instance import Instance

LIMIT_BYTES = 64 << 20  # of each stream of `exec`
_BLOCK_BYTES = 1 << 16
_LONGEST_LINE = 1 << 16  # a longer one comes in parts
_SHOWN_LINES = 15


class Where(NamedTuple):
    """Where a command ran: its instance, the mode, and what the kernel that ran it has reported at the start."""

    instance: str
    mode: str
    receipt: Mapping[str, Any]  # as `receipt` of `vmctl inspect`: kernel, boot id, namespaces or machine

    @property
    def boot_id(self) -> str:
        """The id of the boot of the kernel: a container has that of the host, a guest another one; "" if unknown."""
        return str(self.receipt.get("boot_id", ""))


class Result(NamedTuple):
    """How a command has ended: exit code (128+n for signal n), output, duration in seconds, and where it ran."""

    code: int
    raw_out: bytes
    raw_err: bytes
    seconds: float
    where: Where

    @property
    def out(self) -> str:
        """Its standard output as text."""
        return self.raw_out.decode(errors="replace")

    @property
    def err(self) -> str:
        """Its standard error as text."""
        return self.raw_err.decode(errors="replace")


class Line(NamedTuple):
    """A line of output without its end."""

    stream: str  # stdout | stderr; of a log also console
    text: str
    time_ns: int = 0  # since 1970, when the line was complete; 0 if unknown


class CommandFailed(VmctlError):  # noqa: N818
    """A command with `check=True` has ended with another code than 0; `result` has its output."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message, detail=_last_lines(result.err))
        self.result = result
        if self.detail:
            self.add_note(self.detail)


class CommandTimeout(DeadlineError):  # noqa: N818
    """A command has not ended in time, and was killed; `raw_out` and `raw_err` are its output until then."""

    def __init__(self, message: str, raw_out: bytes, raw_err: bytes) -> None:
        super().__init__(message, detail=_last_lines(raw_err.decode(errors="replace")))
        self.raw_out, self.raw_err = raw_out, raw_err


class TooMuchOutput(VmctlError):  # noqa: N818
    """A command has written more than the limit, and was killed."""


class Running:
    """A command that runs in an instance; iterate over it for its lines.

    As a context manager it ends the command at the end of the block, if that has not ended before.
    """

    def __init__(
        self, inst: Instance, command: Sequence[str], source: str | bytes | IO[Any] | None, flags: dict[str, Any]
    ) -> None:
        if isinstance(command, (str, bytes)) or not command:
            raise SpecError(f"a command is a list of words, not {command!r}", hint='["sh", "-c", "..."] for a shell')
        self._inst, self._words = inst, [os.fspath(word) for word in command]
        self._result: Result | None = None
        given = {**inst.key, "command": self._words, "flags": flags, "stdin": source is not None}
        with _Streams(source) as streams:
            self._call = Call("exec", given, [streams.stdin, streams.out[1], streams.err[1]])
            self._open = {streams.out[0]: "stdout", streams.err[0]: "stderr"}
            streams.keep()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def __iter__(self) -> Iterator[Line]:
        """Yield its lines as they come. Raises the errors of the request, such as CommandNotFoundError."""
        for lines in self.line_blocks():
            yield from lines

    def line_blocks(self) -> Iterator[list[Line]]:
        """Yield its lines as they come, those that come together in one list."""
        lines = _Lines()
        for stream, data in self.blocks(None):
            yield list(lines.feed(stream, data))
        yield list(lines.end())

    @property
    def result(self) -> Result:
        """How it has ended; the output that was iterated over is not in it. Reads to the end of its output."""
        if self._result is None:
            for _ in self.blocks(None):
                pass
        assert self._result is not None
        return self._result

    def blocks(self, end_s: float | None) -> Iterator[tuple[str, bytes]]:
        """Yield its output block by block. Raises TimeoutError at `end_s` of time.monotonic."""
        try:
            while self._result is None:
                left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
                ready = self._ready(left_s)
                if not ready:
                    raise TimeoutError
                yield from self._read([fd for fd in ready if isinstance(fd, int)])
                if self._call in ready:
                    for event, values in self._call.events():
                        if event == wire.DONE:
                            yield from self._rest()
                            where = Where(self._inst.name, values["mode"], values["receipt"])
                            self._result = Result(values["code"], b"", b"", values["seconds"], where)
        except GeneratorExit:
            raise
        except BaseException:
            self.kill()
            raise
        self._close()

    def _ready(self, timeout_s: float | None) -> list[int | Call]:
        waiting: list[int | Call] = [*self._open, self._call]
        return wire.readable(waiting, timeout_s)

    def _read(self, ready: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        for fd in ready:
            if data := os.read(fd, _BLOCK_BYTES):
                yield self._open[fd], data
            else:
                del self._open[fd]
                os.close(fd)

    def _rest(self) -> Iterator[tuple[str, bytes]]:
        """Yield what is in the pipes by now; a process that the command has left behind may still have them open."""
        while ready := wire.readable([*self._open], 0):
            yield from self._read(ready)

    def kill(self) -> None:
        """End it: SIGTERM, and SIGKILL two seconds later; nothing happens if it has ended."""
        if not self._call.over:
            self._call.interrupt()
            if not self._ends(GRACE_S):
                self._call.interrupt()
                self._ends(GRACE_S)
            self._call.close()
        self._close()

    def _ends(self, timeout_s: float) -> bool:
        """Return whether it ends in time; its output is dropped, so that it does not wait for a reader."""
        end_s = time.monotonic() + timeout_s
        with suppress(VmctlError):
            while not self._call.over and (left_s := end_s - time.monotonic()) > 0:
                ready = self._ready(left_s)
                for _ in self._read([fd for fd in ready if isinstance(fd, int)]):
                    pass
                if self._call in ready:
                    for _ in self._call.events():
                        pass
        return self._call.over

    def _close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[0])


class _Streams:
    """The streams of a command: an input to read, and two pipes."""

    def __init__(self, source: str | bytes | IO[Any] | None) -> None:
        self._stack: list[int] = []
        self._mine: list[int] = []
        if source is None:
            self.stdin = self._opened(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        elif isinstance(source, (str, bytes)):
            self.stdin = self._opened(os.memfd_create("input"))
            data = source.encode() if isinstance(source, str) else source
            with os.fdopen(os.dup(self.stdin), "wb") as file:
                file.write(data)
            os.lseek(self.stdin, 0, os.SEEK_SET)
        else:
            self.stdin = source.fileno()
        self.out, self.err = os.pipe(), os.pipe()
        self._stack += [self.out[1], self.err[1]]
        self._mine = [self.out[0], self.err[0]]

    def _opened(self, fd: int) -> int:
        self._stack.append(fd)
        return fd

    def keep(self) -> None:
        """Leave the ends for reading open."""
        self._mine = []

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._stack, *self._mine):
            os.close(fd)


def collected(
    running: Running, timeout_s: float | None, limit: int, on_line: Callable[[Line], object] | None, *, check: bool
) -> Result:
    """Return the result of a command with all of its output. Raises CommandFailed, CommandTimeout, TooMuchOutput."""
    parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    sizes = {"stdout": 0, "stderr": 0}
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    on_line = on_line or (lambda line: None)
    what = f"{running._words[0]} in {running._inst.name}"
    lines = _Lines()
    with running:
        try:
            for stream, data in running.blocks(end_s):
                parts[stream].append(data)
                sizes[stream] += len(data)
                if sizes[stream] > limit:
                    raise TooMuchOutput(f"{what} has written more than {limit} bytes to {stream}", hint="limit=BYTES")
                for line in lines.feed(stream, data):
                    on_line(line)
        except TimeoutError:
            out, err = (b"".join(parts[name]) for name in ("stdout", "stderr"))
            raise CommandTimeout(f"{what} did not end within {timeout_s:g} s, and was killed", out, err) from None
    for line in lines.end():
        on_line(line)
    result = running.result._replace(raw_out=b"".join(parts["stdout"]), raw_err=b"".join(parts["stderr"]))
    if check and result.code:
        ended = f"was ended by {_signal(result.code)}" if result.code > 128 else f"ended with code {result.code}"
        raise CommandFailed(f"{what} {ended}", result)
    return result


class _Lines:
    """Makes lines of blocks."""

    def __init__(self) -> None:
        self._rest = {"stdout": b"", "stderr": b""}

    def feed(self, stream: str, data: bytes) -> Iterator[Line]:
        """Yield the lines that are complete, and parts of one that is too long."""
        *whole, rest = (self._rest[stream] + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        self._rest[stream] = rest
        yield from (Line(stream, line.decode(errors="replace")) for line in whole)

    def end(self) -> Iterator[Line]:
        """Yield the lines that have no end."""
        yield from (Line(stream, line.decode(errors="replace")) for stream, line in self._rest.items() if line)


def _signal(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(code - 128).name
    return f"code {code}"


def _last_lines(text: str) -> str:
    from vmctl.console import visible

    return visible("\n".join(text.splitlines()[-_SHOWN_LINES:]))
