"""The instances of one session of pytest, which may have several processes: golden snapshots, and clones of them.

The session has a folder below the state root, with a file per golden snapshot. Whoever has the lock of that file makes
the snapshot, and writes whether it has been; the others read it. Each process holds a
shared lock of the folder: one that nobody holds belongs to a session that was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple

import vmctl
from vmctl import paths, records
from vmctl.api import snapshot
from vmctl.errors import VmctlError
from vmctl.snapshots import record
from vmctl.testing import ending
from vmctl.testing.ending import KEPT, prefix, root

if TYPE_CHECKING:
    from typing import Any

    from vmctl.testing.description import Description

DEFAULT_MODE = "container"  # as of the command line


class Golden(NamedTuple):
    """A golden snapshot, and what it has cost."""

    snapshot: str
    took_s: float
    made_here: bool  # by this test


class Session:
    """What one process of the session starts."""

    def __init__(self, run: str, worker: str) -> None:
        self.run, self.worker = run, worker or "main"
        self.folder = os.path.join(root(), run)
        self._count = 0
        self._lock = _joined(self.folder)  # as long as this process runs
        ending.sweep()

    def golden(self, described: Description, mode: str) -> Golden:
        """Return the golden snapshot of a description in a mode, which is made if no test has asked for it so far.

        Raises VmctlError, also for one whose making has failed in another test.
        """
        name = f"{prefix(self.run)}{described.digest(mode)}"
        with _locked(os.path.join(self.folder, f"{name}.json")) as file:
            if raw := file.read():
                return _known(raw, name)
            try:
                found = _make(described, mode, name, self.folder)
            except BaseException as error:
                _write(file, {"error": str(error) or type(error).__name__, "hint": getattr(error, "hint", "")})
                raise
            _write(file, {"took_s": found.took_s})
            return found

    def name(self) -> str:
        """Return the name for the next instance of this process."""
        self._count += 1
        return f"{prefix(self.run)}{self.worker}-{self._count}"

    def clone(self, golden: Golden) -> vmctl.Instance:
        """Return a new clone of a golden snapshot, once it is ready. Its ports are free ones of the host."""
        return snapshot.find(golden.snapshot).clone(name=self.name(), free_ports=True)

    def keep(self, instance: vmctl.Instance) -> None:
        """Let an instance stay for its user."""
        instance.keep()
        with open(os.path.join(self.folder, instance.name + KEPT), "x", opener=_private):
            pass


def _joined(folder: str) -> int:
    """Return a descriptor with a shared lock of the folder of a session, which is made if this is the first."""
    while True:
        for path in (paths.state_root(), root(), folder):
            os.makedirs(path, mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # another session took it for that of a killed one
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(fd), os.stat(folder)):
                return fd
            os.close(fd)


@contextmanager
def _locked(path: str) -> Iterator[IO[bytes]]:
    """Yield a file that no other worker has open here meanwhile; it is made if it is missing."""
    with open(path, "a+b", opener=_private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write(file: IO[bytes], values: dict[str, Any]) -> None:
    file.write(json.dumps(records.versioned(values)).encode())
    file.flush()


def _known(raw: bytes, name: str) -> Golden:
    values = records.checked_format(records.parse(raw, name), name)
    if "error" in values:
        raise VmctlError(
            f"the golden snapshot could not be made for an earlier test: {values['error']}", hint=values["hint"]
        )
    return Golden(name, float(values["took_s"]), made_here=False)


def _make(described: Description, mode: str, name: str, folder: str) -> Golden:
    """Start the instance that a golden snapshot is taken of, prepare it, and take the snapshot."""
    begun_s = time.monotonic()
    path = os.path.join(folder, f"{name}.yaml")
    with open(path, "x", encoding="utf-8", opener=_private) as file:
        json.dump({**described.keys}, file)  # JSON is YAML
    with _up(path, mode, f"{name}-golden") as instance:
        if described.prepare is not None:
            described.prepare(instance)
        if described.stop:
            instance.stop()
        taken = instance.snapshot(name)
        if described.stop is None and not record.find(name).process_state:
            taken.remove()  # a server writes its files completely when it ends
            instance.stop()
            instance.snapshot(name)
    return Golden(name, time.monotonic() - begun_s, made_here=True)


def _up(path: str, mode: str, name: str) -> vmctl.Instance:
    try:
        return vmctl.up(path, mode=mode, name=name)
    except VmctlError as error:
        error.args = (str(error).removeprefix(f"{path}: "),)  # nobody has written that file
        raise
