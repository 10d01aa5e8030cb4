"""The last record of an instance that is removed when it has ended (`run --rm`), for those who watch it.

Whoever watches it holds its record: an open file with a shared lock (flock(2)). The process that removes the instance
waits for them, so they can read its logs and how it has ended; the open file shows that after the removal too.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

from vmctl import records
from vmctl.instances import instance
from vmctl.instances.instance import STATE, STATE_BYTES, Instance

_MOST_S = 10.0  # a stopped process may watch it for ever
_PERIOD_S = 0.02


def hold(inst: Instance) -> None:
    """Hold the record of an instance that is removed at its end, until `release`, or until `inst` is forgotten."""
    if inst.state.removes and inst.record is None:
        with suppress(OSError):
            inst.record = open(inst.path(STATE), "rb")  # noqa: SIM115
            fcntl.flock(inst.record, fcntl.LOCK_SH | fcntl.LOCK_NB)


def release(inst: Instance) -> None:
    """Let the instance be removed; repeatable."""
    if inst.record is not None:
        inst.record.close()
        inst.record = None


def read(inst: Instance) -> bool:
    """Take the last state from a record that is held, and return whether it is of this instance and after its end."""
    if inst.record is None:
        return False
    inst.record.seek(max(0, os.fstat(inst.record.fileno()).st_size - STATE_BYTES))
    what = f"{inst.name}: {STATE}"
    for line in reversed(inst.record.read().split(b"\n")[:-1]):
        with suppress(records.UnreadableError):
            values = records.checked_format(records.parse(line, what), what)
            state, timeline = instance.of_line(values, what)
            if state.id != inst.id or state.exit_source is None:
                return False
            inst.state, inst.timeline = state, timeline
            return True
    return False


def wait_for_holders(inst: Instance) -> None:
    """Wait until nobody holds the record of an instance, for at most 10 s."""
    end_s = time.monotonic() + _MOST_S
    with suppress(OSError), open(inst.path(STATE), "rb") as file:
        while time.monotonic() < end_s:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_PERIOD_S)
