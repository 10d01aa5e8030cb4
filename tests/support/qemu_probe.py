"""Do something as a running QEMU: in its namespaces, with its user, groups, capabilities and limits.

The probe has no system call filter, so it can attempt more than a QEMU that a guest has taken over.
"""

import ctypes
import encodings.idna  # noqa: F401
import json
import os
import resource
import signal
import socket  # noqa: F401
import stat  # noqa: F401

from vmctl.linux import syscalls

NAMESPACES = {
    "net": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "mnt": syscalls.CLONE_NEWNS,  # the last one: the others are opened by their paths on the host
}
_libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH = 16


def status(pid):
    """Return the fields of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def limits(pid):
    """Return the soft limits of a process by their names in /proc/PID/limits, -1 for no limit."""
    with open(f"/proc/{pid}/limits", encoding="utf-8") as file:
        found = {line[:26].strip(): line[26:].split()[0] for line in file}
    return {name: -1 if soft == "unlimited" else int(soft) for name, soft in found.items() if name.startswith("Max")}


def as_qemu(pid, attempts):
    """Call each of the functions in a child that has become like process `pid`; return {name: answer or error}.

    An answer means that the attempt got through.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            _become(pid)
            answers = {}
            for name, attempt in attempts.items():
                try:
                    answers[name] = ["got through", repr(attempt())]
                except OSError as error:
                    answers[name] = ["refused", error.strerror]
            os.write(theirs, json.dumps(answers).encode())
        except BaseException as error:
            os.write(theirs, json.dumps(f"the probe failed: {error!r}").encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    answers = json.loads(text)
    assert isinstance(answers, dict), answers
    return answers


def _become(pid):
    os.setsid()  # SIGCONT may be sent within a session
    found_limits = limits(pid)
    handles = {name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in NAMESPACES}
    mounts = handles.pop("mnt")
    for name, fd in handles.items():  # before the user namespace, which may own none of them, as pasta's the network
        syscalls.setns(fd, NAMESPACES[name])
        os.close(fd)
    with open(f"/proc/{pid}/ns/pid", "rb") as file:
        syscalls.setns(file.fileno(), syscalls.CLONE_NEWPID)
    if os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user"):
        with open(f"/proc/{pid}/ns/user", "rb") as file:
            syscalls.setns(file.fileno(), syscalls.CLONE_NEWUSER)
    found = status(pid)  # with the ids of that user namespace
    if worker := os.fork():  # only a child is in the PID namespace
        os.waitpid(worker, 0)
        os._exit(0)
    syscalls.setns(mounts, syscalls.CLONE_NEWNS)
    os.close(mounts)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for kind, name in ((resource.RLIMIT_FSIZE, "Max file size"), (resource.RLIMIT_NPROC, "Max processes")):
        resource.setrlimit(kind, (found_limits[name], found_limits[name]))
    if found["NoNewPrivs"] == "1":
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    bounding = int(found["CapBnd"], 16)
    for number in range(41):
        if not bounding >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    gid, uid = int(found["Gid"].split()[0]), int(found["Uid"].split()[0])
    os.setgroups([int(group) for group in found["Groups"].split()])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.capset(int(found["CapPrm"], 16))  # in another user namespace, the change of the user has cleared none


def read(path):
    """Return the beginning of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def trace(pid):
    """Attach to a process as a debugger."""
    if _libc.ptrace(PTRACE_ATTACH, pid, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return "attached"
