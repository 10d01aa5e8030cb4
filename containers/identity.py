"""The identity of the workload: user, groups and capabilities, without a way to gain more of them."""

from __future__ import annotations

import errno
import os

from containers import imagepath
from vmctl.errors import SpecError
from vmctl.linux import syscalls, usernamespace
from vmctl.named import NamedTuple
from vmctl.spec import userid

# capabilities(7), in the order of the kernel's numbers (linux/capability.h).
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
# Docker's default set without MKNOD, and without NET_RAW, with which a container poses as its neighbours (ARP).
DEFAULT = (
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT AUDIT_WRITE SETFCAP"
).split()


_TABLE_BYTES = 1 << 20  # of /etc/passwd and /etc/group


class User(NamedTuple):
    """The ids of a user, and the home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def capability_mask(add: tuple[str, ...], drop: tuple[str, ...]) -> int:
    """Return the bit mask of the default set plus `add` and minus `drop`.

    Names are those of capabilities(7); CAP_ is optional, ALL means all. Raises SpecError for an unknown name.
    """
    dropped = {_plain(name) for name in drop}
    kept = set() if "ALL" in dropped else set(DEFAULT) - dropped
    added = {_plain(name) for name in add}
    kept = set(CAPABILITIES) if "ALL" in added else kept | added
    return sum(1 << CAPABILITIES.index(name) for name in kept)


def names(mask: int) -> set[str]:
    """Return the names of the capabilities in a bit mask."""
    return {name for bit, name in enumerate(CAPABILITIES) if mask & 1 << bit}


def bounding() -> set[str]:
    """Return the names of the capabilities that this process may give, and of those that this kernel does not have."""
    found = set()
    for number, name in enumerate(CAPABILITIES):
        try:
            if syscalls.prctl(syscalls.PR_CAPBSET_READ, number):
                found.add(name)
        except OSError:  # EINVAL: this kernel does not have it
            found.add(name)
    return found


def _plain(name: str) -> str:
    plain = name.upper().removeprefix("CAP_")
    if plain != "ALL" and plain not in CAPABILITIES:
        raise SpecError(f"there is no capability {name}", hint="capabilities(7) lists them, for instance NET_ADMIN")
    return plain


def options(user: User, capabilities: int | None) -> list[str]:
    """Return the options of setpriv(1) that do what `become` does."""
    groups = ",".join(map(str, user.groups))
    words = [f"--reuid={user.uid}", f"--regid={user.gid}", f"--groups={groups}" if groups else "--clear-groups"]
    if capabilities is None:
        return words
    kept = (f",+{name.lower()}" for bit, name in enumerate(CAPABILITIES) if capabilities & 1 << bit)
    return [*words, "--no-new-privs", f"--bounding-set=-all{''.join(kept)}"]


def find_user(text: str | None) -> User:
    """Return the user `name|uid[:group|gid]`, looked up in /etc/passwd and /etc/group of this root; None is root.

    A number is an id and needs no entry. Raises SpecError for a name without an entry, and for an id out of range.
    """
    try:
        return _find_user(text)
    except ValueError as error:
        raise SpecError(f"the user {(text or 'root')[:40]}: {error}") from None


def _find_user(text: str | None) -> User:
    user_text, _, group_text = (text or "0").partition(":")
    by_id = userid.is_number(user_text)  # so an image cannot give a number another meaning
    wanted = str(userid.number(user_text)) if by_id else user_text
    entry = next((row for row in _table("/etc/passwd", (2, 3), 7) if row[2 if by_id else 0] == wanted), None)
    if entry is None and not by_id:
        raise SpecError(
            f"the user {user_text} is not in the image's /etc/passwd", hint="a number needs no entry: 1000:1000"
        )
    uid = userid.number(entry[2] if entry else user_text)
    gid, home = (userid.number(entry[3]), entry[5] or "/") if entry else (0, "/")
    if group_text:
        return User(uid, _find_group(group_text), (), home)
    if not text or entry is None:
        return User(uid, gid, (), home)  # the default user gets no supplementary groups
    rows = _table("/etc/group", (2,), 4)
    return User(uid, gid, tuple(userid.number(row[2]) for row in rows if entry[0] in row[3].split(",")), home)


def _find_group(text: str) -> int:
    if userid.is_number(text):
        return userid.number(text)
    for row in _table("/etc/group", (2,), 4):
        if row[0] == text:
            return userid.number(row[2])
    raise SpecError(f"the group {text} is not in the image's /etc/group", hint="a number needs no entry: 1000:1000")


def _table(path: str, numbers: tuple[int, ...], columns: int) -> list[list[str]]:
    """Return the lines of passwd(5) or group(5) with digits in the columns `numbers`, which each line must have.

    Other columns that are missing are empty, and further ones are ignored, as Docker has it.
    """
    content = imagepath.content(path, _TABLE_BYTES).decode(errors="replace")
    rows = [[*line.split(":"), *[""] * columns][:columns] for line in content.split("\n")]
    return [row for row in rows if all(userid.is_number(row[index]) for index in numbers)]


def become_root() -> None:
    """Become uid 0 of the user namespace just entered: until then the process still has the host's uid 0."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def become(user: User, capabilities: int | None) -> None:
    """Become `user` with the capability mask (None: keep all). No program executed later can gain privileges."""
    if capabilities is not None:
        _leave_keyring()
        for number in range(len(CAPABILITIES)):
            if not capabilities >> number & 1:
                _drop_from_bounding_set(number)
    _become_user(user)
    if capabilities is not None:
        if user.uid == 0:
            syscalls.capset(capabilities)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def _become_user(user: User) -> None:
    try:
        _set_groups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)  # away from uid 0 this empties the other sets (capabilities(7))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise SpecError(
            f"the user {user.uid}:{user.gid} does not exist here", hint="a user namespace has only the ids 0 to 65535"
        ) from None


def _set_groups(groups: tuple[int, ...]) -> None:
    """Set the supplementary groups. A user without subordinate ids keeps those of the login: setgroups(2) is denied."""
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups or usernamespace.ids() > 1:
            raise


def _leave_keyring() -> None:
    """Get an empty session keyring: that of the caller would be the workload's too (session-keyring(7))."""
    try:
        syscalls.join_session_keyring()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # refused to vmctl: there is no keyring to inherit either
            raise


def _drop_from_bounding_set(number: int) -> None:
    try:
        syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    except OSError:
        pass  # EINVAL: this kernel does not have the capability
