"""The kinds of steps: which lines of the trace belong to each, its reason, and where a second terminal can look.

The reasons are those of `--explain`. A line of no kind belongs to the step before it: a folder or a link on the way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vmctl.named import NamedTuple
from vmctl.phases import PHASES
from vmctl.steps import Step

PHASE = "phase "  # and its name: a phase of a guest has ended; the note is the command for a second terminal
_PROCESS = "ps -o pid,ppid,user,args -p {pid}"
_MOUNTS = "findmnt -N {pid}"


class Kind(NamedTuple):
    """A kind of steps. In the command for the second terminal names in braces are replaced.

    They are `pid` and `thread` of who takes the step, and the groups of the pattern.
    """

    name: str
    phase: str
    pattern: str  # of the line in the trace
    look: str  # for anybody
    root: str = ""  # for root, if it is another one
    explained: str = ""  # how the name of the step of --explain begins
    next: bool = False  # the trace has it before it is taken
    why: str = ""  # if --explain has no such step
    after: str = ""  # it follows a step of this kind of the same process; else it belongs to another step


class Found(NamedTuple):
    """A step of a kind."""

    kind: Kind
    words: dict[str, str]

    def look(self, pid: int, thread: int, *, root: bool) -> str:
        """Return the command for a second terminal."""
        text = self.kind.root if root and self.kind.root else self.kind.look
        return text.format(pid=pid, thread=thread, **self.words)


_IN_SWITCH = r"nsenter --net=(?P<net>\S+) "
ON_HOST = (
    Kind("layer", "image", r"mount -t erofs .*", "findmnt -N {pid} -t erofs", explained="layer"),
    Kind("writable layer", "disk", r"mkdir -p (?P<path>\S+/upper)", "ls -ld {path}", explained="writable layer"),
    Kind("disk", "disk", r"(truncate|mke2fs|qemu-img) .*", _PROCESS, explained="writable d", next=True),
    Kind(
        "libvirt",
        "qemu",
        r".*virsh .* create (?P<path>\S+)",
        "grep -c . {path}",
        next=True,
        why="QEMU is confined first: it emulates devices for a hostile guest",
    ),
    Kind(
        "cable",
        "network",
        rf"{_IN_SWITCH}(ip link add vm|bridge |ip neigh |nft add element bridge ).*",
        _PROCESS,
        "nsenter --net={net} ip -brief link",
        "network",
        why="a virtual cable: one end on the bridge, the other one inside",
    ),
    Kind(
        "tap device",
        "cable",
        rf"{_IN_SWITCH}ip tuntap add vm.*",
        _PROCESS,
        "nsenter --net={net} ip -brief link",
        "tap device",
    ),
    Kind(
        "switch",
        "cable",
        r"ip link add vmctl\d+ .*",
        "cat /proc/{pid}/task/{thread}/net/dev",
        "nsenter --net=/proc/{pid}/task/{thread}/ns/net ip -brief address",
        "switch",
    ),
    Kind(
        "place in the switch",
        "cable",
        rf"{_IN_SWITCH}.*",
        _PROCESS,
        "nsenter --net={net} ip -brief link",
        why="the switch knows which address and which MAC belong to this instance, and drops everything else",
    ),
    Kind("cgroup", "limits", r"mkdir -p (?P<path>/sys/fs/cgroup/\S+)", "ls {path}", explained="cgroup"),
    Kind("limit", "limits", r"echo .* > (?P<path>/sys/fs/cgroup/\S+)", "ls -l {path}", explained="limit"),
    Kind("clone3", "clone", r"unshare --.* --fork bash|clone3, .*", _PROCESS, explained="clone3", next=True),
    Kind("ids", "clone", r"echo .* > (?P<path>/proc/\d+/[ug]id_map)", "cat {path}", explained="ids", after="clone3"),
    Kind(
        "QEMU, stopped",
        "qemu",
        r"/\S*qemu-system\S* .*",
        "ps -o pid,user,nlwp,time,comm -p {qemu}",
        why="it has the guest's memory and devices; no instruction of the guest was executed so far (-S)",
    ),
)
INSIDE = (
    Kind(
        "the new process",
        "clone",
        r"the new process is there",
        "grep -E '^(Name|NSpid|Uid)' /proc/{pid}/status",
        "lsns -p {pid}",
        why="it is a copy of vmctl with its own namespaces; inside it has another pid",
    ),
    Kind(
        "joins its control group",
        "limits",
        r"echo .* > /sys/fs/cgroup/.*/(tasks|cgroup\.procs)",
        "cat /proc/{pid}/cgroup",
        why="counted and limited from here on; with cgroups v2 clone3(2) does it",
    ),
    Kind("own mounts", "root", r"mount --make-rprivate /", "findmnt -N {pid} -o TARGET,PROPAGATION", "", "own mounts"),
    Kind("root", "root", r"mount -t overlay .*", "findmnt -N {pid} -t overlay", explained="root"),
    Kind("pivot_root", "root", r"pivot_root .*|chroot \.", _MOUNTS, explained="pivot_root"),
    Kind(
        "file system of the kernel",
        "mounts",
        r"mount -t (?P<type>proc|devpts|mqueue|sysfs) .*",
        "findmnt -N {pid} -t {type}",
    ),
    Kind("file system in memory", "mounts", r"mount -t tmpfs (?!-o ro).*", "findmnt -N {pid} -t tmpfs"),
    Kind("control groups", "mounts", r"mount -t cgroup2? .*", _MOUNTS, why="its own groups, read-only"),
    Kind("device", "mounts", r"mount --bind dev/.*", _MOUNTS, why="only harmless devices of the host"),
    Kind("mask", "mounts", r"mount (--r?bind|-t tmpfs -o ro).*", _MOUNTS, why="files that would give the host away"),
    Kind("old root", "root", r"umount -l \.", _MOUNTS, explained="old root"),
    Kind("file", "mounts", r"touch /dev/\..*|write .*", _MOUNTS, explained="hide"),
    Kind("host name", "clone", r"hostname .*", _PROCESS, "nsenter -t {pid} -u hostname", why="only inside"),
    Kind("network", "network", r"ip .*", "cat /proc/{pid}/net/dev", "nsenter -t {pid} -n ip -brief address", "network"),
    Kind(
        "exec",
        "exec",
        r"cd .* && exec .*",
        "grep -E '^(Uid|Cap|NoNewPrivs|Seccomp)' /proc/{pid}/status",
        next=True,
        why="capabilities are dropped, no_new_privs is set, the filter of system calls is loaded, then execve(2)",
    ),
)
OTHER = Kind("other", "", ".*", _PROCESS)


def of(command: str, note: str, *, inside: bool, last: str = "") -> Found | None:
    """Return the kind of a line of the trace, if it has one.

    `inside`: it is of the first process of a container; `last` is the kind of the step before in the same process.
    """
    if command.startswith(PHASE):
        return Found(Kind("the guest is stopped", command.removeprefix(PHASE), "", "{command}"), {"command": note})
    for kind in (*(INSIDE if inside else ()), *ON_HOST):
        follows = not kind.after or last in (kind.after, kind.name)
        if follows and (found := re.fullmatch(kind.pattern, command, re.DOTALL)):
            words = {name: value or "" for name, value in found.groupdict().items()}
            return Found(kind, {**words, "qemu": note.rpartition(" ")[2]})
    return None


def why(kind: Kind, steps: Sequence[Step]) -> str:
    """Return the reason for a kind of steps: that of --explain, else its own, else that of its phase."""
    for step in steps:
        if kind.explained and step.what.startswith(kind.explained) and step.why:
            return step.why
    return kind.why or (PHASES[kind.phase].why if kind.phase in PHASES else "")
