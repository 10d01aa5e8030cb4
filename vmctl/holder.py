"""The namespaces of an ordinary user: one user and mount namespace per state root, which each command enters.

In a user namespace a user has root's privileges over what belongs to that namespace, and none over the host. A
namespace ends with its last process, so a small process holds it: `/bin/sh`, which ends a minute after the last
instance. It is made by the first command that needs it, and recorded with pid, start time and the numbers of its
namespaces, because the kernel gives a pid to another process later. If it was killed, or the record is lost, any other
process in these namespaces leads back to them: they are those with the tmpfs of this state root.

Uid 0 inside is the user, the ids from 1 on are the user's subordinate ids (subuid(5), newuidmap(1)). A user without
subordinate ids has only uid 0. See user_namespaces(7), mount_namespaces(7).
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import paths, records
from vmctl.errors import UnavailableError
from vmctl.linux import kernelfile, mountinfo, processes, syscalls, usernamespace
from vmctl.linux.filetree import write_atomic
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import NoReturn

IDLE_S = 60
# `$1/*` is the folders of the instances; a command that is about to make one is in the namespaces itself
_WAIT_UNTIL_IDLE = f'while sleep {IDLE_S}; do set -- "$1" "$1"/*; [ -e "$2" ] || exit 0; set -- "$1"; done'
_NS_GET_PARENT, _NS_GET_OWNER_UID = 0xB702, 0xB704  # ioctl_ns(2)
_SWITCHES = (  # settings of hosts that forbid user namespaces to ordinary users: the value that forbids, what to type
    ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


class Holder(NamedTuple):
    """The process that holds the namespaces."""

    pid: int
    start: int  # in clock ticks since boot
    user: int  # number of the user namespace (inode in nsfs)
    mnt: int  # number of the mount namespace


class Range(NamedTuple):
    """Subordinate ids of a user: `length` ids from `first` on."""

    first: int
    length: int


def enter() -> None:
    """Enter the namespaces of this user, which are made if they do not exist; as root, or inside, do nothing.

    Afterwards this process has uid 0 there, and the same working directory. Raises UnavailableError with the reason.
    """
    if os.geteuid() == 0:
        return
    folder = os.getcwd()
    os.environ.setdefault("HOME", os.path.expanduser("~"))  # uid 0 has another home
    os.makedirs(paths.state_root(), mode=0o700, exist_ok=True)
    if not _join(_recorded()):
        with _making():
            _find_or_make()
    try:
        os.chdir(folder)
    except OSError as error:
        raise UnavailableError(
            f"the folder {folder} is not in the namespaces of this user: {error.strerror}",
            hint="change to another folder; after `vmctl down` of all instances, new namespaces are made in a minute",
        ) from None


def _find_or_make() -> None:
    """Enter the namespaces; the caller has the lock."""
    if _join(_recorded()):  # another command was quicker
        return
    if any(map(_join, _others())):
        _record(_start_holder())
        return
    made = _make()
    if not _join(made):
        raise UnavailableError("the namespaces of this user ended while they were made", hint="try again")
    _record(made)


def _path() -> str:
    return os.path.join(paths.state_root(), "holder")


@contextmanager
def _making() -> Iterator[None]:
    """Lock out other commands that would make the namespaces at the same time."""
    fd = os.open(f"{_path()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _recorded() -> Holder | None:
    """Return the recorded holder, None if there is no record that can be read."""
    with suppress(FileNotFoundError, records.UnreadableError):
        values = records.checked_format(records.read(_path(), "holder"), "holder")
        found: Holder = records.build(Holder, values, "holder", {})
        return found
    return None


def _record(holder: Holder) -> None:
    import json

    write_atomic(_path(), json.dumps(records.versioned(holder._asdict())))


def _join(holder: Holder | None) -> bool:
    """Enter the namespaces of a process, if it is the one that was recorded and they belong to this user."""
    if holder is None or not 0 < holder.pid < 1 << 31:
        return False
    try:
        pidfd = os.pidfd_open(holder.pid)
    except OSError:
        return False
    try:
        if not processes.alive(holder.pid, holder.start) or not _is_ours(holder):
            return False
        # The checks are about the process of the pidfd: its pid is not given away as long as it lives.
        syscalls.setns(pidfd, syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    _settle()
    return True


def _settle() -> None:
    """Take note of the new namespaces."""
    # setns(2) took the right to write the id maps of children: /proc of a process that gained privileges is root's
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    usernamespace.forget()


def _is_ours(holder: Holder) -> bool:
    """Return whether the process is in the recorded namespaces, and its user namespace is one that we have made.

    A container can make user namespaces too, but below that of its user, and its processes have their own pids.
    """
    import struct

    fd = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = bytearray(4)
        fcntl.ioctl(fd, _NS_GET_OWNER_UID, owner)
        parent = fcntl.ioctl(fd, _NS_GET_PARENT)
        is_child = os.path.samestat(os.fstat(parent), os.stat("/proc/self/ns/user"))
        os.close(parent)
        if not is_child or struct.unpack("I", owner)[0] != os.geteuid() or os.fstat(fd).st_ino != holder.user:
            return False
    finally:
        os.close(fd)
    return _number(holder.pid, "mnt") == holder.mnt and _number(holder.pid, "pid") == _number("self", "pid")


def _number(pid: int | str, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def _others() -> list[Holder]:
    """Return the processes, the oldest first, in whose mount namespace our tmpfs is, such as supervisors.

    The oldest is not in a copy of the namespace, as a child that starts a guest is.
    """
    found, own = [], _number("self", "user")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or belongs to another user
            if _number(name, "user") != own and mountinfo.below(paths.run_root(), pid=name):
                found.append(_described(int(name)))
    return sorted(found, key=lambda other: other.start)


def _start_holder() -> Holder:
    """Start another holder in the namespaces that this process has entered."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _hold(writer)
    os.close(writer)
    _refuse_failed(reader)
    return _described(pid)


def _described(pid: int) -> Holder:
    return Holder(pid, processes.start_time(pid) or 0, _number(pid, "user"), _number(pid, "mnt"))


def _make() -> Holder:
    """Make the namespaces and their holder. Raises UnavailableError with the reason."""
    run_root = paths.run_root()
    os.makedirs(run_root, mode=0o700, exist_ok=True)
    mapped, failed = os.pipe(), os.pipe()
    try:
        # Not fork(2) and unshare(2): the latter would make /proc of the child root's, and its ids could not be mapped.
        pid = syscalls.clone3(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS, exit_signal=signal.SIGCHLD)
    except OSError as error:
        raise refusal(error.strerror or str(error)) from None
    if pid == 0:
        os.close(mapped[1])
        _become_holder(mapped[0], failed[1], run_root)
    os.close(mapped[0])
    os.close(failed[1])
    try:
        _map(pid)
        os.write(mapped[1], b"m")
        _refuse_failed(failed[0])
        return _described(pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(mapped[1])


def _become_holder(mapped: int, failed: int, run_root: str) -> NoReturn:
    try:
        if not os.read(mapped, 1):
            os._exit(1)
        # Mounts of the host appear here too, such as another disk; none of those made here appear on the host.
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        # Those made here appear in the namespaces that a command makes from this one: a guest's start needs the switch.
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SHARED)
        # not in XDG_RUNTIME_DIR, which is removed when the user logs out, and the instances are not
        syscalls.mount("tmpfs", run_root, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=700")
    except OSError as error:
        _fail(failed, error)
    _hold(failed)


def _hold(failed: int) -> NoReturn:
    """Execute the shell that holds the namespaces; `failed` is closed by exec."""
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in range(3):
            os.dup2(null, number)
        syscalls.close_on_exec_from(3)
        syscalls.reset_signals()
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        words = ["sh", "-c", _WAIT_UNTIL_IDLE, "vmctl-holder", paths.instances_root()]
        os.execve("/bin/sh", words, environment)
    except OSError as error:
        _fail(failed, error)


def _fail(failed: int, error: OSError) -> NoReturn:
    with suppress(OSError):
        os.write(failed, (error.strerror or str(error)).encode())
    os._exit(1)


def _refuse_failed(failed: int) -> None:
    """Raise UnavailableError with the reason that a holder has written; wait until it has executed its program."""
    with os.fdopen(failed, "rb") as file:
        if reason := file.read():
            raise refusal(reason.decode(errors="replace"))


def refusal(reason: str) -> UnavailableError:
    """Return the error for a host that forbids user namespaces, with what its administrator would type."""
    for setting, forbidding, command in _SWITCHES:
        with suppress(OSError), open(f"/proc/sys/{setting}", encoding="ascii") as file:
            if file.read().strip() == forbidding:
                name = setting.replace("/", ".")
                return UnavailableError(
                    f"this host forbids user namespaces to ordinary users: {name} is {forbidding}",
                    hint=f"{command}, or run vmctl as root",
                )
    return UnavailableError(f"this host refuses a user namespace: {reason}", hint="run vmctl as root: sudo vmctl ...")


def _map(pid: int) -> None:
    """Map the ids of the new user namespace in which a process is. Raises UnavailableError."""
    uid, gid = os.geteuid(), os.getegid()
    ranges = subordinate_ids()
    if ranges is None:  # nobody but the user: then the groups of this process must stay as they are
        kernelfile.write(f"/proc/{pid}/setgroups", "deny")
        kernelfile.write(f"/proc/{pid}/uid_map", f"0 {uid} 1")
        kernelfile.write(f"/proc/{pid}/gid_map", f"0 {gid} 1")
        return
    from vmctl.programs import CommandError, run

    for program, own, ids in (("newuidmap", uid, ranges[0]), ("newgidmap", gid, ranges[1])):
        words, inside = ["0", str(own), "1"], 1
        for first, length in ids:
            words += [str(inside), str(first), str(length)]
            inside += length
        try:
            run([program, str(pid), *words])
        except CommandError as error:
            raise UnavailableError(
                f"the subordinate ids of this user cannot be mapped: {error.reason}",
                hint="`vmctl doctor` shows what is missing",
            ) from None


def subordinate_ids() -> tuple[list[Range], list[Range]] | None:
    """Return the subordinate uids and gids of this user (subuid(5)), None unless both exist and can be mapped."""
    from vmctl.which import which

    found = _ranges("/etc/subuid"), _ranges("/etc/subgid")
    return found if all(found) and which("newuidmap") and which("newgidmap") else None


def _ranges(path: str) -> list[Range]:
    """Return the ranges in a file that are of this user, who is named there by login or uid."""
    import pwd

    uid = usernamespace.host_uid()
    names = {str(uid)}
    with suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    found = []
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
                found.append(Range(int(fields[1]), int(fields[2])))
    return [ids for ids in found if ids.length > 0]
