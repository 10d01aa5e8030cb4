"""The marks of a guest: the lines that its init reports, each with the time at which the recorder got it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from vmctl.instances.instance import Instance
from vmctl.logs.logwriter import TIMES
from vmctl.named import NamedTuple
from vmm import files

MOST_BYTES = 1 << 16  # of what a guest has written are read: it could write without end

# word of a mark -> the phase that ends with it (vmctl/phases.py)
_PHASES = {
    "init": "kernel",
    "mounts": "layers",
    "seed": "settings",
    "network": "network",
    "exec": "exec",
    "system": "system",
}
_UNKNOWN = (0, None)  # after the last time that was noted
_UPTIME = re.compile(r"init .* ([0-9]{1,6}\.[0-9]{2})", re.ASCII)


class Mark(NamedTuple):
    """A line, and when it arrived, in nanoseconds of CLOCK_MONOTONIC; None if that is not known."""

    line: str
    at_ns: int | None


def lines(inst: Instance) -> list[str]:
    """Return the complete lines that the guest's init has written so far."""
    return [mark.line for mark in read(inst)]


def has(inst: Instance, word: str) -> bool:
    """Return whether the guest has reported a mark with this first word."""
    return any(line.partition(" ")[0] == word for line in lines(inst))


def read(inst: Instance) -> list[Mark]:
    """Return the same with their times."""
    raw, found, end = _content(files.marks(inst)), [], 0
    times = iter(_times(inst) if raw else ())  # passed once: a hostile guest writes very many lines
    size, at_ns = next(times, _UNKNOWN)
    for line in raw.split(b"\n")[:-1]:
        end += len(line) + 1
        while size < end and at_ns is not None:
            size, at_ns = next(times, _UNKNOWN)
        found.append(Mark(line.decode(errors="replace"), at_ns))
    return found


def note_phases(inst: Instance, marks: list[Mark]) -> None:
    """Mark the ends of phases whose times are known; each is kept as it was first reported."""
    timeline = inst.timeline
    for line, at_ns in marks:
        phase = _PHASES.get(line.partition(" ")[0])
        if at_ns is None or phase is None:
            continue
        if phase == "kernel" and phase not in timeline.marks_ns and (begun_ns := _begun_ns(inst, line, at_ns)):
            timeline.mark("firmware", begun_ns)
        timeline.mark(phase, at_ns)


def _begun_ns(inst: Instance, line: str, at_ns: int) -> int | None:
    """Return when the guest's kernel began, by its own clock; None if that is impossible: a guest may report anything.

    The clock begins when the kernel has unpacked itself; its unit is 10 ms (proc(5), uptime).
    """
    found = _UPTIME.fullmatch(line)
    begun_ns = at_ns - round(float(found[1]) * 1e9) if found else 0
    return begun_ns if inst.timeline.marks_ns.get("T1", at_ns) <= begun_ns else None


def _content(path: str) -> bytes:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read(MOST_BYTES)
    return b""


def _times(inst: Instance) -> list[tuple[int, int]]:
    """Return sizes of the file of the marks, ascending, and when it had each."""
    return list(_pairs(_content(files.marks(inst) + TIMES)))


def _pairs(raw: bytes) -> Iterator[tuple[int, int]]:
    for line in raw.split(b"\n")[:-1]:
        size, _, at_ns = line.partition(b" ")
        if size.isdigit() and at_ns.isdigit():  # on a full disk only a part of it
            yield int(size), int(at_ns)
