"""Shell commands that are equivalent to system calls: mount(8), umount(8), unshare(1)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from vmctl.linux import syscalls as linux

_PLAIN = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OPTIONS = {
    linux.MS_BIND: "bind",
    linux.MS_REC: "rec",
    linux.MS_REMOUNT: "remount",
    linux.MS_RDONLY: "ro",
    linux.MS_NOSUID: "nosuid",
    linux.MS_NODEV: "nodev",
    linux.MS_NOEXEC: "noexec",
    linux.MS_RELATIME: "relatime",
    linux.MS_STRICTATIME: "strictatime",
}
_NAMESPACES = {
    linux.CLONE_NEWUSER: "--user",
    linux.CLONE_NEWNS: "--mount",
    linux.CLONE_NEWPID: "--pid",
    linux.CLONE_NEWNET: "--net",
    linux.CLONE_NEWIPC: "--ipc",
    linux.CLONE_NEWUTS: "--uts",
    linux.CLONE_NEWCGROUP: "--cgroup",
}


def quote(word: str) -> str:
    """Return a word quoted for bash, on one line."""
    if _PLAIN.fullmatch(word):
        return word
    if _CONTROL.search(word):
        escaped = word.replace("\\", "\\\\").replace("'", "\\'")
        return "$'" + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + "'"
    return "'" + word.replace("'", "'\\''") + "'"


def join(words: Iterable[str]) -> str:
    """Return a command line."""
    return " ".join(map(quote, words))


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> str:
    """Return the command for mount(2) with these arguments."""
    if flags & linux.MS_PRIVATE:
        return join(["mount", "--make-rprivate" if flags & linux.MS_REC else "--make-private", target])
    if flags & linux.MS_BIND and not flags & linux.MS_REMOUNT:
        how = "--rbind" if flags & linux.MS_REC else "--bind"
        return join(["mount", how, _resolved(source or "none"), _resolved(target)])
    options = [name for flag, name in _OPTIONS.items() if flags & flag] + ([data] if data else [])
    kind = ["-t", fstype, "-o", ",".join(options) or "defaults", source or fstype] if fstype else []
    return join(["mount", *(kind or ["-o", ",".join(options)]), target])


def umount(target: str, flags: int) -> str:
    """Return the command for umount2(2)."""
    return join(["umount", *(["-l"] if flags & linux.MNT_DETACH else []), target])


def unshare(flags: int) -> str:
    """Return the command that opens a shell in new namespaces of the kinds in `flags`."""
    return join(["unshare", *kinds(flags), "--fork", "bash"])


def nsenter(pid: int, flags: int) -> str:
    """Return the command that opens a shell in the root and in these namespaces of a process."""
    return join(["nsenter", "--target", str(pid), *kinds(flags), "--root", "--wd", "sh"])


def kinds(flags: int) -> list[str]:
    """Return the options of unshare(1) and nsenter(1) for these namespaces."""
    return [name for flag, name in _NAMESPACES.items() if flags & flag]


def _resolved(path: str) -> str:
    """Return a path; one below /proc/self/fd is replaced by the path of the file it refers to."""
    if not path.startswith("/proc/self/fd/"):
        return path
    try:
        return os.readlink(path)
    except OSError:
        return path
