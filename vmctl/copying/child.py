"""A child process at the other end of a pipe, whose error is raised here."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vmctl import errors
from vmctl.copying.tar import PART, TarError
from vmctl.errors import VmctlError
from vmctl.linux import syscalls

_DRAINED_PARTS = 64
_REPORT_BYTES = 1 << 15  # less than a pipe holds (pipe(7)): the child ends without a reader


@contextmanager
def in_child(act: Callable[[int], list[str]], *, reads: bool) -> Iterator[tuple[int, list[str]]]:
    """Call `act` in a child with one end of a pipe, which it reads or writes; yield the other end.

    The list gets what `act` returns, at the end of the block. Raises the error of the child, if it failed.
    """
    first, second = os.pipe()
    ours, theirs = (second, first) if reads else (first, second)
    report, write_report = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # it has inherited locks of the parent
        if os.getppid() != parent:
            os._exit(1)
        for fd in (ours, report):
            os.close(fd)
        _act(act, theirs, write_report)
    for fd in (theirs, write_report):
        os.close(fd)
    left_out: list[str] = []
    try:
        try:
            yield ours, left_out
            if not reads:
                _drain(ours)
        except (BrokenPipeError, TarError):  # if the child has failed, its error is the better one
            os.close(ours)
            ours = -1
            _read_report(report)
            raise
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        os.close(ours)
        ours = -1
        left_out += _read_report(report)
    finally:
        for fd in (ours, report):
            if fd >= 0:
                os.close(fd)
        os.waitpid(pid, 0)


def _drain(fd: int) -> None:
    """Read what follows the end of a tar, up to a limit: its writer must not fail because nobody reads."""
    for _ in range(_DRAINED_PARTS):
        if not os.read(fd, PART):
            return


def _act(act: Callable[[int], list[str]], fd: int, report: int) -> None:
    """Act in the child, report, and exit."""
    answer: dict[str, object] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        answer = {"left_out": [text[:200] for text in act(fd)[:20]]}
    except BrokenPipeError:  # the parent has failed, and has the better error
        pass
    except VmctlError as error:
        answer = {"kind": type(error).__name__, "text": str(error), "hint": error.hint}
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else ""
        answer = {"kind": "VmctlError", "text": f"{error.strerror}{f' ({name})' if name else ''}"}
    except BaseException as error:
        answer = {"kind": "VmctlError", "text": f"internal error: {error!r}"}
    finally:
        with suppress(OSError):
            os.write(report, json.dumps(answer).encode()[:_REPORT_BYTES])
        os._exit(0)


def _read_report(report: int) -> list[str]:
    """Return what the child has left out. Raises its error."""
    data = b""
    while part := os.read(report, _REPORT_BYTES):
        data += part
    try:
        answer = json.loads(data.decode(errors="replace") or "{}")
    except ValueError:
        answer = {}
    if text := answer.get("text"):
        kind = getattr(errors, answer["kind"], VmctlError)
        raise kind(text, hint=answer.get("hint", ""))
    found: list[str] = answer.get("left_out", [])
    return found
