"""System calls that Python does not offer. The only file that uses ctypes.

Names and constants are the kernel's. Each call is checked where it is declared; it raises OSError with the path it was
applied to. `PyDLL` keeps the interpreter's lock during a call, so a child made by `clone3` holds the lock, as after
fork(2). None of these calls blocks.
"""

from __future__ import annotations

import ctypes
import os

from vmctl import trace
from vmctl.light import signal
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# mount(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1000, 0x4000, 0x40000, 0x80000, 0x100000
MS_RELATIME, MS_STRICTATIME = 0x200000, 0x1000000
MNT_DETACH = 2
# clone(2)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_PARENT, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000, 0x10000000, 0x20000000, 0x40000000
CLONE_INTO_CGROUP = 0x200000000
_CLONE_VM, _CLONE_VFORK, _SIGCHLD = 0x100, 0x4000, 17
# prctl(2), capabilities(7)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 4, 22, 23, 24
PR_SET_NO_NEW_PRIVS, PR_SET_THP_DISABLE = 38, 41
SECCOMP_MODE_FILTER = 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
# close_range(2)
CLOSE_RANGE_CLOEXEC = 4
# inotify(7)
IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100
# bpf(2), linux/bpf.h
_BPF_MAP_CREATE, _BPF_PROG_LOAD, _BPF_LINK_CREATE = 0, 5, 28
_BPF_MAP_TYPE_RINGBUF, BPF_PROG_TYPE_SOCK_OPS, _BPF_CGROUP_SOCK_OPS = 27, 13, 3
_BPF_PROG_ATTACH, BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI = 8, 15, 6, 2
_BPF_ATTR_BYTES = 72  # the used part of union bpf_attr; the kernel takes the rest as zero
# openat2(2)
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 8, 16
# open_tree(2), mount_setattr(2), move_mount(2)
_OPEN_TREE_CLONE, _AT_EMPTY_PATH, _AT_RECURSIVE = 1, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOSYMFOLLOW = 0x100000, 0x200000

# fsopen(2), fsconfig(2), fsmount(2): linux/mount.h
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

# the same on every architecture
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_CLONE3, _SYS_CLOSE_RANGE, _SYS_OPENAT2 = 428, 429, 435, 436, 437
_SYS_MOUNT_SETATTR, _SYS_CACHESTAT = 442, 451
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_AT_FDCWD = -100
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, 41)
_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, 219), 1
_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, 280)
_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}.get(os.uname().machine, 134)

_libc = ctypes.PyDLL(None, use_errno=True)
_int, _long, _text, _pointer = ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_void_p
for _name, _types in {
    "mount": (_text, _text, _text, _long, _text),
    "umount2": (_text, _int),
    "unshare": (_int,),
    "setns": (_int, _int),
    "sethostname": (_text, _long),
    "prctl": (_int, _long, _long, _long, _long),
    "capset": (_pointer, _pointer),
    "fstatfs": (_int, _pointer),
    "clone": (_pointer, _pointer, _int, _pointer),
    "inotify_init1": (_int,),
    "inotify_add_watch": (_int, _text, ctypes.c_uint32),
}.items():
    getattr(_libc, _name).argtypes = _types
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def _checked(result: int, call: str, target: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        if trace.on and call != "open":  # a search in PATH opens many
            trace.comment(f"refused: {call} {target or ''}: {os.strerror(number)}")
        raise OSError(number, f"{call}: {os.strerror(number)}", target)
    return result


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    words = (os.fsencode(word) if word else None for word in (source, target, fstype))
    _checked(_libc.mount(*words, flags, data.encode() if data else None), f"mount {fstype or source}", target)
    if trace.on:
        from vmctl.linux import commands

        trace.step(commands.mount(source, target, fstype, flags, data))


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), flags), "umount", target)
    if trace.on:
        from vmctl.linux import commands

        trace.step(commands.umount(target, flags))


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _checked(_syscall(_SYS_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)
    if trace.on:
        trace.step(f"pivot_root {new_root} {put_old} && hash -r", "a shell looks for its programs anew")


def open_tree(path: str, *, recursive: bool = True) -> int:
    """Return a detached copy of a mount and of all mounts below it: open_tree(2), OPEN_TREE_CLONE (Linux 5.2)."""
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0))
    return _checked(_syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), "open_tree", path)


def mount_setattr(
    tree: int, attributes: int = 0, userns_fd: int = 0, *, propagation: int = 0, recursive: bool = True
) -> None:
    """mount_setattr(2) for a mount and all mounts below it; on an error none is changed (Linux 5.12)."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    values = (ctypes.c_uint64 * 4)(attributes, 0, propagation, userns_fd)
    flags = ctypes.c_uint(_AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0))
    _checked(_syscall(_SYS_MOUNT_SETATTR, tree, b"", flags, values, ctypes.c_size_t(32)), "mount_setattr")


def move_mount(tree: int, target: str | int) -> None:
    """Attach a detached mount to a path or to an open file or folder: move_mount(2) (Linux 5.2)."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (_MOVE_MOUNT_T_EMPTY_PATH if isinstance(target, int) else 0)
    place = (target, b"") if isinstance(target, int) else (_AT_FDCWD, os.fsencode(target))
    _checked(_syscall(_SYS_MOVE_MOUNT, tree, b"", *place, ctypes.c_uint(flags)), "move_mount", str(target))
    if trace.on:
        trace.comment(f"move_mount: a copy of a mount is attached to {target}")


def detached_mount(source: str, fstype: str, options: tuple[str, ...] = (), *, read_only: bool = True) -> int:
    """Return a detached mount (nosuid, nodev, noexec) of a device or file; `options`: NAME or NAME=VALUE."""
    words = (option.partition("=") for option in (*(("ro",) if read_only else ()), *options))
    parameters = (("source", source), *((name, value or None) for name, _, value in words))
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    return new_mount(fstype, parameters, attributes | (MOUNT_ATTR_RDONLY if read_only else 0))


def new_mount(fstype: str, parameters: tuple[tuple[str, str | None], ...], attributes: int) -> int:
    """Return a detached mount: fsopen(2), fsconfig(2) per parameter, fsmount(2) (Linux 5.2)."""
    context = _checked(_syscall(_SYS_FSOPEN, fstype.encode(), ctypes.c_uint(_FSOPEN_CLOEXEC)), f"fsopen {fstype}")
    try:
        for key, value in parameters:
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            raw = None if value is None else os.fsencode(value)
            _checked(_syscall(_SYS_FSCONFIG, context, command, key.encode(), raw, 0), f"mount {fstype}", value or key)
        source = dict(parameters).get("source")
        _checked(_syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0), f"mount {fstype}", source)
        return _checked(_syscall(_SYS_FSMOUNT, context, ctypes.c_uint(_FSMOUNT_CLOEXEC), attributes), "fsmount", source)
    finally:
        os.close(context)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2); with a pidfd, `nstype` may name several namespaces (Linux 5.8)."""
    _checked(_libc.setns(fd, nstype), "setns")


def syncfs(fd: int) -> None:
    """Write the file system of an open file to the disk (syncfs(2))."""
    _checked(_libc.syncfs(fd), "syncfs")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    _checked(_libc.sethostname(raw, len(raw)), "sethostname", name)
    if trace.on:
        trace.step(f"hostname {name}")


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
            *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
        )
    ]


def clone3(flags: int, *, exit_signal: int, cgroup_fd: int | None = None) -> int:
    """clone3(2) without a new stack, so like fork(2): return 0 in the child, the child's pid in the parent.

    With `cgroup_fd`, the child is created in that cgroup (v2, Linux 5.7).
    """
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    args = _CloneArgs(flags=flags, exit_signal=exit_signal, cgroup=cgroup_fd or 0)
    return _checked(_syscall(_SYS_CLONE3, ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))), "clone3")


def new_user_namespace() -> int:
    """Return the pid of a child that has ended in a new user namespace; /proc has the namespace until waitpid(2).

    The child runs nothing but _exit(2), on its own stack in the memory of this process, which waits for its end
    (clone(2), CLONE_VM, CLONE_VFORK). To copy this process would take ten times as long, 0.8 ms.
    """
    stack = ctypes.create_string_buffer(65536)
    top = ctypes.addressof(stack) + len(stack) & ~15  # the stack grows downwards
    flags = CLONE_NEWUSER | _CLONE_VM | _CLONE_VFORK | _SIGCHLD
    return _checked(_libc.clone(ctypes.cast(_libc._exit, _pointer), top, flags, None), "clone")


def close_on_exec_from(first_fd: int) -> None:
    """Set close-on-exec for every descriptor from `first_fd` up (close_range(2), Linux 5.11)."""
    last, flags = ctypes.c_uint(0xFFFFFFFF), CLOSE_RANGE_CLOEXEC
    _checked(_syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(first_fd), last, flags), "close_range")


def join_session_keyring() -> None:
    """keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: replace the session keyring of this process by a new one without name."""
    _checked(_syscall(_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None), "keyctl")


def reset_signals() -> None:
    """Give each signal its default action, which execve(2) keeps; the mask of blocked signals becomes empty.

    rt_sigaction(2) by its number, since the C library refuses 32 and 33, which a caller may nevertheless ignore.
    """
    default = bytes(32)  # struct sigaction of the kernel: SIG_DFL, no flags, an empty mask
    for signum in range(1, 65):
        if signum not in (9, 19):  # SIGKILL and SIGSTOP have no other action
            _checked(_syscall(_SYS_RT_SIGACTION, signum, default, None, ctypes.c_size_t(8)), "rt_sigaction")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def openat2(path: str, flags: int, mode: int = 0, resolve: int = 0, at: int = _AT_FDCWD) -> int:
    """openat2(2) relative to an open folder, or else the working directory (Linux 5.6); return a descriptor."""
    how = _OpenHow(flags, mode, resolve)
    arguments = (at, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    return _checked(_syscall(_SYS_OPENAT2, *arguments), "open", path)


def file_system(fd: int) -> int:
    """Return the magic number of the file system of an open file: fstatfs(2), f_type."""
    found = (ctypes.c_long * 16)()  # struct statfs: f_type comes first
    _checked(_libc.fstatfs(fd, found), "fstatfs")
    return found[0]


def cached_bytes(fd: int) -> int:
    """Return how many bytes of an open file are in the page cache: cachestat(2), nr_cache (Linux 6.5)."""
    whole = (ctypes.c_uint64 * 2)(0, 0)  # struct cachestat_range: off, len; 0 means to the end
    found = (ctypes.c_uint64 * 5)()  # struct cachestat: nr_cache comes first
    flags = ctypes.c_uint(0)
    _checked(_syscall(_SYS_CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(found), flags), "cachestat")
    return int(found[0]) * os.sysconf("SC_PAGE_SIZE")


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    return _checked(_libc.prctl(option, arg2, arg3, arg4, arg5), "prctl")


def capset(capabilities: int) -> None:
    """capset(2): set the effective and permitted sets of this thread to the bit mask, clear the inheritable set."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _checked(_libc.capset(header, data), "capset")


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", _text)]


def seccomp_filter(program: bytes) -> None:
    """Install a BPF program of 8-byte instructions as this thread's system call filter (seccomp(2))."""
    fprog = _SockFprog(len(program) // 8, program)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog))


def inotify_init() -> int:
    """Return a non-blocking descriptor for `inotify_add_watch` (inotify_init1(2))."""
    return _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2)."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), mask), "inotify_add_watch", path)


def bpf_ring(size_bytes: int) -> int:
    """Return a ring buffer: BPF programs write to it, poll(2) waits for it (bpf(2), Linux 5.8)."""
    return _bpf(_BPF_MAP_CREATE, (ctypes.c_uint32 * 4)(_BPF_MAP_TYPE_RINGBUF, 0, 0, size_bytes))


def bpf_program(kind: int, program: bytes) -> int:
    """Load a BPF program of 8-byte instructions and return its descriptor (bpf(2), BPF_PROG_LOAD)."""
    text, terms = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
    head = (ctypes.c_uint32 * 2)(kind, len(program) // 8)
    where = (ctypes.c_uint64 * 2)(ctypes.addressof(text), ctypes.addressof(terms))
    return _bpf(_BPF_PROG_LOAD, head, where)


def bpf_link_sock_ops(program: int, cgroup_fd: int) -> int:
    """Attach such a program to a v2 cgroup; closing the returned descriptor detaches it (bpf(2), Linux 5.7)."""
    return _bpf(_BPF_LINK_CREATE, (ctypes.c_uint32 * 4)(program, cgroup_fd, _BPF_CGROUP_SOCK_OPS, 0))


def bpf_attach(program: int, cgroup_fd: int, place: int) -> None:
    """Attach a program to a v2 cgroup, for as long as that exists, in addition to others (bpf(2), BPF_PROG_ATTACH)."""
    _bpf(_BPF_PROG_ATTACH, (ctypes.c_uint32 * 4)(cgroup_fd, program, place, _BPF_F_ALLOW_MULTI))


def _bpf(command: int, *parts: ctypes.Array[Any]) -> int:
    attributes = ctypes.create_string_buffer(b"".join(map(bytes, parts)), _BPF_ATTR_BYTES)
    return _checked(_syscall(_SYS_BPF, command, attributes, ctypes.c_size_t(_BPF_ATTR_BYTES)), "bpf")
