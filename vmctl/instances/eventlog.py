"""The log of what has happened to instances, also to those that are gone: `events.jsonl` in the state root.

Who changes the state of an instance appends a line per event, with one write. A file of more than LIMIT_BYTES is
renamed to `events.jsonl.1`, so at most two exist. An event that cannot be written, for example on a full disk, is lost:
nothing that ends or removes an instance waits for this file.

Two commands may see the same end at the same time, and both write it. So each line of a run has the number of the run,
and the reader (eventreader.py) skips what it has seen.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

from vmctl import paths, records
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from vmctl.instances.instance import Instance, State
    from vmctl.instances.timeline import Timeline

LIMIT_BYTES = 1 << 20
LABELS_BYTES = 1024  # labels that are longer are not in the log
OF_A_RUN = ("start", "ready", "die")  # actions that happen once in a run


def stage(state: State, timeline: Timeline) -> tuple[int, bool, bool]:
    """Return how many runs have begun, and whether the last one got ready, and has ended.

    A run that is prepared counts when its workload has been started.
    """
    if state.status == "created":
        return max(0, state.starts - ("begun" in timeline.marks_ns)), False, False
    return state.starts, "T6" in timeline.marks_ns, state.exit_source is not None


def note_progress(inst: Instance) -> None:
    """Write what has happened to an instance since its state was read or saved, before the state is saved."""
    (run, was_ready, had_ended), inst.noted = inst.noted, stage(inst.state, inst.timeline)
    runs, is_ready, has_ended = inst.noted
    started = runs > run
    lines = [_line(inst, "start")] if started else []
    if is_ready and (started or not was_ready):
        lines.append(_line(inst, "ready"))
    if has_ended and (started or not had_ended):
        lines.append(_end(inst))
    _write(lines)


def note(inst: Instance, action: str, **more: str) -> None:
    """Write that something has happened to an instance."""
    _write([_line(inst, action, **more)])


def note_removed(inst: Instance) -> None:
    """Write that an instance was removed, and first that it has ended, if that was not recorded."""
    runs, _, has_ended = inst.noted
    _write([*([_end(inst)] if runs and not has_ended else []), _line(inst, "destroy")])


def note_lost(name: str, identity: str) -> None:
    """Write that an instance was removed that could not be read."""
    _write([{"time_s": _now_s(), "action": "destroy", "id": identity or name, "name": name, "mode": "", "image": ""}])


def _line(inst: Instance, action: str, **more: Any) -> dict[str, Any]:
    line = {"time_s": _now_s(), "action": action, "id": inst.id, "name": inst.name, "mode": inst.state.mode}
    line["image"] = inst.work.image
    if action in OF_A_RUN:
        line["run"] = inst.state.starts
    labels = inst.work.labels
    if labels and sum(len(key) + len(value) for key, value in labels.items()) <= LABELS_BYTES:
        line["labels"] = dict(labels)
    return {**line, **more}


def _end(inst: Instance) -> dict[str, Any]:
    line, state = _line(inst, "die"), inst.state
    if state.exit_code is not None:
        line["exit_code"] = state.exit_code
    if state.exit_source is not None:
        line["exit_source"] = state.exit_source
    if state.exit_source in ("workload", "signal"):
        line["time_s"] = min(line["time_s"], round(_reported_s(inst), 6) or line["time_s"])
    return line


def _reported_s(inst: Instance) -> float:
    """Return when the end of a run was reported, by the file with the report; 0 without one."""
    with suppress(OSError), open(inst.path("marks" if inst.state.exit_reporter == "guest" else "exit"), "rb") as file:
        if file.read(1).strip():  # it is blank until the end
            return os.fstat(file.fileno()).st_mtime
    return 0.0


def _now_s() -> float:
    return round(time.time(), 6)


def path() -> str:
    """Return the path of the log; that of the part before it ends in `.1`."""
    return os.path.join(paths.state_root(), "events.jsonl")


def _write(lines: list[dict[str, Any]]) -> None:
    """Append lines with one write, and begin a new file after it if this one is full. Raises nothing."""
    if not lines:
        return
    with suppress(OSError):
        target = path()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(target, flags, 0o600)
        try:
            data = "".join(records.line(line) + "\n" for line in lines).encode()
            os.write(fd, b"\n" + data if records.is_cut(fd) else data)
            if os.fstat(fd).st_size > LIMIT_BYTES:
                _rotate(fd, target)
        finally:
            os.close(fd)


def _rotate(fd: int, path: str) -> None:
    """Rename a full file, unless another process is doing it, or has done it. Raises OSError."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.path.samestat(os.fstat(fd), os.stat(path)):
        os.rename(path, path + ".1")
