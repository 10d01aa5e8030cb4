"""Read the log of events (eventlog.py): what can be read of it, without what two commands have written."""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import records
from vmctl.instances import eventlog
from vmctl.linux import filetree
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec.rules import is_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_ONCE = ("create", "destroy")
_ACTIONS = (*_ONCE, *eventlog.OF_A_RUN, "pause", "unpause", "suspend", "update", "rename")


class Event(NamedTuple):
    """One thing that happened to an instance."""

    time_s: float  # since the epoch
    action: str  # create | start | ready | pause | unpause | suspend | update | rename | die | destroy
    name: str
    mode: str
    image: str
    exit_code: int | None = None  # of `die`
    exit_source: str | None = None
    old_name: str | None = None  # of `rename`
    labels: Mapping[str, str] = {}


def read() -> list[tuple[str, Event]]:
    """Return id of the instance and event of each line, the oldest first; what cannot be read is skipped."""
    found: list[tuple[str, Event]] = []
    seen: set[tuple[object, ...]] = set()
    latest_s: dict[str, float] = {}
    for values in _lines():
        with suppress(KeyError, TypeError, ValueError):
            identity, run, event = _parsed(values)
            key = (identity, event.action, run if event.action in eventlog.OF_A_RUN else 0)
            if event.action in (*eventlog.OF_A_RUN, *_ONCE):
                if key in seen:
                    continue
                seen.add(key)
            # the end of a run may be written long after it: its time is that of a file, whose clock is a coarse one
            latest_s[identity] = max(event.time_s, latest_s.get(identity, 0.0))
            found.append((identity, event._replace(time_s=latest_s[identity])))
    return sorted(found, key=lambda one: one[1].time_s)


def _parsed(values: dict[str, Any]) -> tuple[str, int, Event]:
    """Return id, run and event of a line. Raises KeyError, TypeError, ValueError."""
    known = {name: values[name] for name in Event._fields if name in values}
    labels = known.get("labels", {})
    texts = [values["id"], known["mode"], known["image"], known.get("old_name", ""), known.get("exit_source", "")]
    texts += [part for pair in labels.items() for part in pair] if isinstance(labels, dict) else [None]
    numbers = [values.get("run", 0), known.get("exit_code", 0)]
    if known["action"] not in _ACTIONS or not is_name(known["name"]) or type(known["time_s"]) not in (int, float):
        raise ValueError(known["action"])
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError(known["action"])
    return texts[0], numbers[0], Event(**known)


def _lines() -> list[dict[str, Any]]:
    """Return the values of each line of both files; of a line of a later vmctl nothing."""
    path = eventlog.path()
    opened = [_opened(path), _opened(path + ".1")]  # in this order: if it is renamed meanwhile, both are the same file
    found: list[dict[str, Any]] = []
    inodes = [status.st_ino for status, _ in filter(None, opened)]
    if len(set(inodes)) < len(inodes):
        del opened[1]
    for _, raw in filter(None, reversed(opened)):
        for line in raw.split(b"\n")[:-1]:
            with suppress(records.UnreadableError):
                found.append(records.checked_format(records.parse(line, path), path))
    return found


def _opened(path: str) -> tuple[os.stat_result, bytes] | None:
    with suppress(OSError), open(filetree.open_file(path), "rb") as file:
        return os.fstat(file.fileno()), file.read(4 * eventlog.LIMIT_BYTES)
    return None
