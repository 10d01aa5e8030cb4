"""What happens to instances, as it happens: the difference between what is seen now and what was seen before.

There is no daemon that could report it. Each change of an instance changes a file of its folder, or ends one of its
processes; both wake this process (inotify(7), pidfd_open(2)), which then looks at that instance only. What has happened
before is in the log of events (vmctl/instances/eventlog.py), of which nothing is needed for what happens now.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from vmctl import paths, survey
from vmctl.ends import SUSPENDED
from vmctl.errors import NotFoundError
from vmctl.instances import eventlog, eventreader, lastrecord
from vmctl.instances.eventreader import Event
from vmctl.instances.instance import Instance
from vmctl.linux import syscalls
from vmctl.named import NamedTuple
from vmctl.spec.rules import is_name
from vmctl.survey import ENDED, Seen

_DELETED, _MOVED_FROM, _IGNORED = 0x200, 0x40, 0x8000  # inotify(7)
_OF_ROOT = syscalls.IN_CREATE | syscalls.IN_MOVED_TO | _DELETED | _MOVED_FROM
_OF_FOLDER = syscalls.IN_MODIFY | syscalls.IN_MOVED_TO | syscalls.IN_CREATE
_HEADER = struct.Struct("iIII")  # struct inotify_event
_SETTLE_S = 0.005  # one change is often several writes
_RECORDED_S = 2.0
_SILENT_FILES = ("stdout.log", "stderr.log", "console.log")
_LOOK_S = 2.0  # in case an event was lost
_SEAM_S = 1.0


class _Known(NamedTuple):
    """What matters of an instance."""

    id: str
    name: str
    mode: str
    image: str
    status: str
    starts: int
    ready: bool
    resources: object
    exit_code: int | None
    exit_source: str | None
    labels: Mapping[str, str]


def events(since_s: float | None = None, until_s: float | None = None) -> Iterator[Event]:
    """Yield each event from now on; with `since_s` or `until_s`, seconds since the epoch, also those in the log.

    It ends at `until_s`, if it is given.
    """
    watcher = _Watcher()
    known: dict[str, _Known | None] = {}
    for seen in survey.survey():  # it records the ends that nobody has seen so far, with their times
        known[seen.name] = _known(seen)
        watcher.follow(seen.name, seen.instance)
    now_s, newest = time.time(), {}
    if since_s is not None or until_s is not None:
        for _, event in eventreader.read():
            if (since_s or 0.0) <= event.time_s < min(now_s, until_s or now_s):
                newest[event.name] = event
                yield event
    for event in _from_now_on(watcher, known, until_s):
        logged = newest.pop(event.name, None)  # it may have been in the log before it was to be seen
        if not logged or logged.action != event.action or logged.time_s < now_s - _SEAM_S:
            yield event


def _from_now_on(watcher: _Watcher, known: dict[str, _Known | None], until_s: float | None) -> Iterator[Event]:
    """Yield each event until a time, or without an end; `known` is what was seen last."""
    while until_s is None or time.time() < until_s:
        looks = {name: _look(name) for name in watcher.wait(until_s)}
        now = {name: _seen(look, known.get(name)) for name, look in looks.items()}
        yield from _moved(known, now)
        for name, look in looks.items():
            yield from _between(known.get(name), now[name])
            if look is None:
                known.pop(name, None)
                watcher.forget(name)
            else:
                known[name] = now[name]
                watcher.follow(name, look.instance)


def _look(name: str) -> Seen | None:
    """Return an instance as it is; of one that has just ended, its command may be about to record how."""
    end_s = time.monotonic() + _RECORDED_S
    while True:
        seen = survey.look(name)
        if seen is None or seen.status not in ENDED or seen.instance is None or time.monotonic() > end_s:
            return seen
        try:
            if seen.instance.state.exit_code is not None:
                return seen
            if not seen.instance.busy():
                return survey.look(name)  # it may have been recorded since the look
        except NotFoundError:
            return None
        time.sleep(_SETTLE_S)


def _seen(look: Seen | None, before: _Known | None) -> _Known | None:
    """Return what is known now; a new folder that cannot be read is about to be an instance."""
    return None if look is None or (look.instance is None and before is None) else _known(look)


def _known(seen: Seen) -> _Known:
    inst = seen.instance
    if inst is None:
        return _Known("", seen.name, "", "", seen.status, 0, False, None, None, None, {})
    state, work = inst.state, inst.work
    runs, ready, _ = eventlog.stage(state, inst.timeline)
    return _Known(
        state.id,
        seen.name,
        state.mode,
        work.image,
        seen.status,
        runs,
        ready,
        work.resources,
        state.exit_code,
        state.exit_source,
        work.labels,
    )


def _moved(known: dict[str, _Known | None], now: dict[str, _Known | None]) -> Iterator[Event]:
    """Yield an event for each instance that has another name now, and note that it has."""
    for name, one in now.items():
        if one is None or not one.id or known.get(name):
            continue
        old = next((other for other, was in known.items() if was and was.id == one.id), None)
        if old is not None and now.get(old) is None:
            known[name] = known.pop(old)
            now[old] = None
            yield _event("rename", one, old_name=old)


def _between(before: _Known | None, after: _Known | None) -> Iterator[Event]:
    """Yield what has happened from one look to the next."""
    if after is None:
        if before is not None:
            if before.status not in ENDED and before.starts:
                yield _event("die", before)
            yield _event("destroy", before)
        return
    if before is None or before.id != after.id:
        if before is not None:
            yield _event("destroy", before)
        yield _event("create", after)
        before = after._replace(status="created", starts=0, ready=False)
    started = after.starts > before.starts
    if started:
        if before.status not in (*ENDED, SUSPENDED, "created"):
            yield _event("die", before)
        yield _event("start", after)
    if after.ready and (started or not before.ready):
        yield _event("ready", after)
    if before.resources != after.resources:
        yield _event("update", after)
    if after.status == SUSPENDED != before.status:
        yield _event("suspend", after)
    elif "paused" in (before.status, after.status) and before.status != after.status and not started:
        yield _event("pause" if after.status == "paused" else "unpause", after)
    if after.status in ENDED and (started or before.status not in ENDED):
        yield _event("die", after, exit_code=after.exit_code, exit_source=after.exit_source)


def _event(
    action: str,
    one: _Known,
    *,
    exit_code: int | None = None,
    exit_source: str | None = None,
    old_name: str | None = None,
) -> Event:
    return Event(time.time(), action, one.name, one.mode, one.image, exit_code, exit_source, old_name, one.labels)


class _Watcher:
    """Wakes when something may have happened, and reports to which instances."""

    def __init__(self) -> None:
        self._root = paths.instances_root()
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        self._inotify = syscalls.inotify_init()
        self._top = syscalls.inotify_add_watch(self._inotify, self._root, _OF_ROOT)
        self._folders: dict[int, str] = {}  # watch -> name
        self._ends: dict[int, str] = {}  # pidfd -> name
        self._pids: dict[str, set[int]] = {}
        self._held: dict[str, Instance] = {}  # those that are removed at their end, see lastrecord.py
        self._poller = select.poll()
        self._poller.register(self._inotify, select.POLLIN)

    def follow(self, name: str, inst: Instance | None) -> None:
        """Wake for changes of this instance too, and for the end of its processes."""
        with suppress(OSError):  # it has just been removed; or the limit of watches: then _LOOK_S is the period
            watch = syscalls.inotify_add_watch(self._inotify, os.path.join(self._root, name), _OF_FOLDER)
            self._folders[watch] = name
        if inst is not None and inst.state.removes:
            self._hold(name, inst)
        pids = {inst.state.pid, inst.state.supervisor_pid} - {None} if inst is not None else set()
        for pid in pids - self._pids.get(name, set()):
            with suppress(OSError):
                fd = os.pidfd_open(pid)  # type: ignore[arg-type]
                self._ends[fd] = name
                self._poller.register(fd, select.POLLIN)
        self._pids[name] = {pid for pid in pids if pid is not None}

    def _hold(self, name: str, inst: Instance) -> None:
        held = self._held.get(name)
        if held is not None and (held.id != inst.id or inst.state.exit_source):
            lastrecord.release(self._held.pop(name))
        elif held is None and not inst.state.exit_source:
            lastrecord.hold(inst)
            self._held[name] = inst

    def forget(self, name: str) -> None:
        """Forget an instance that is gone; the kernel has ended its watch."""
        self._folders = {watch: other for watch, other in self._folders.items() if other != name}
        self._pids.pop(name, None)
        if name in self._held:
            lastrecord.release(self._held.pop(name))

    def wait(self, until_s: float | None = None) -> list[str]:
        """Return the names of the instances to look at, after something has happened to one of them.

        After some time, and at `until_s`, these are all.
        """
        found: set[str] = set()
        while not found:
            wait_s = _LOOK_S if until_s is None else max(0.0, min(_LOOK_S, until_s - time.time()))
            ready = self._poller.poll(1000 * wait_s)
            if not ready:
                return sorted({*self._folders.values(), *_listing(self._root)})
            time.sleep(_SETTLE_S)
            for fd, _ in ready:
                if fd in self._ends:
                    found.add(self._ends.pop(fd))
                    self._poller.unregister(fd)
                    os.close(fd)
            found |= self._changed()
        return sorted(found)

    def _changed(self) -> set[str]:
        found = set()
        with suppress(BlockingIOError):
            data = os.read(self._inotify, 1 << 16)
            at = 0
            while at < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, at)
                name = os.fsdecode(data[at + _HEADER.size : at + _HEADER.size + length].partition(b"\0")[0])
                at += _HEADER.size + length
                if mask & _IGNORED:
                    self._folders.pop(watch, None)
                elif watch == self._top:
                    found |= {name} if is_name(name) else set()
                elif watch in self._folders and not name.startswith(_SILENT_FILES):
                    found.add(self._folders[watch])
        return found


def _listing(folder: str) -> list[str]:
    with suppress(FileNotFoundError):
        return [name for name in os.listdir(folder) if is_name(name)]
    return []
