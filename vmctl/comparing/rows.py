"""The rows of a comparison: which facts there are, in which order, why they differ, and where to read on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vmctl.named import NamedTuple


class Fact(NamedTuple):
    """A fact that is compared."""

    name: str
    title: str
    why: str
    read: str  # man page or file of the documentation


class Row(NamedTuple):
    """A fact, its value in each mode, None if it is unknown there, and whether all known values are equal."""

    fact: Fact
    values: tuple[str | None, ...]
    same: bool


_KERNEL = "a guest boots its own kernel, a container's processes are processes of the host's kernel"
_VIEW = "files of /proc show the kernel that answers: in a container the host's, also if its control group allows less"
_GRANT = "what the control group, or the machine that QEMU emulates, lets it use"
_SPACE = "a namespace is a separate view of one kernel; the number is its inode in that boot of the kernel"
_USER = "in a user namespace, 0 inside is an ordinary user outside; in a guest it is root of another kernel"
_RIGHTS = "root of a container has a part of root's capabilities; root of a guest needs no such limit towards the host"
_OWN_DEVICES = "a container gets a few harmless devices of the host's kernel; a guest has emulated hardware"

FACTS = (
    Fact("kernel", "kernel", _KERNEL, "uname(2)"),
    Fact("kernel_build", "kernel build", _KERNEL, "proc_version(5)"),
    Fact(
        "boot_id", "boot id", "each boot of a kernel has a random id: equal ids are one and the same boot", "random(4)"
    ),
    Fact("uptime_s", "seconds up", "a guest's kernel has booted with it, the host's long before", "proc_uptime(5)"),
    Fact(
        "accelerator",
        "accelerator",
        "who executes a guest's instructions: the processor (kvm) or QEMU (tcg)",
        "docs/architecture.md",
    ),
    Fact("processor", "processor", "a guest sees the processor that QEMU shows it", "proc_cpuinfo(5)"),
    Fact("processors", "processors seen", _VIEW, "proc_cpuinfo(5)"),
    Fact("granted_processors", "processors granted", _GRANT, "cgroups(7)"),
    Fact("memory_kib", "memory seen, KiB", _VIEW, "proc_meminfo(5)"),
    Fact("granted_memory", "memory granted", _GRANT, "cgroups(7)"),
    Fact("host_memory", "memory on the host", "a guest's kernel and QEMU need memory, too", "docs/bench.md"),
    Fact("first_process", "process 1", "the first process of a PID namespace, or of a kernel", "pid_namespaces(7)"),
    Fact(
        "processes", "processes seen", "a PID namespace hides the others; a guest has only its own", "pid_namespaces(7)"
    ),
    Fact("host_process", "main process on host", "a guest is one process of the host: QEMU", "ps(1)"),
    Fact("host_processes", "processes on host", "the processes of a guest are not processes of the host", "ps(1)"),
    Fact(
        "host_sees_workload",
        "workload's pids on host",
        "the host sees the processes of a container, and nothing inside of a guest",
        "proc_pid_environ(5)",
    ),
    Fact("host_namespaces", "own namespaces", "as the host sees them for its main process", "namespaces(7)"),
    *(
        Fact(f"ns_{kind}", f"namespace {kind}", _SPACE, "namespaces(7)")
        for kind in "cgroup ipc mnt net pid time user uts".split()
    ),
    Fact("user", "user and group", _USER, "credentials(7)"),
    Fact("id_map", "user id map", _USER, "user_namespaces(7)"),
    Fact("capabilities", "capabilities", _RIGHTS, "capabilities(7)"),
    Fact("bounding_set", "most capabilities", _RIGHTS, "capabilities(7)"),
    Fact("seccomp", "seccomp mode", "2: a filter refuses system calls that containers do not need", "seccomp(2)"),
    Fact("no_new_privileges", "no new privileges", "1: set-uid programs give no rights", "prctl(2)"),
    Fact("host_name", "host name", "part of the UTS namespace, or of the kernel", "uts_namespaces(7)"),
    Fact("links", "network interfaces", "a network namespace has its own ones", "network_namespaces(7)"),
    Fact("addresses", "addresses", "a network namespace has its own ones", "docs/network.md"),
    Fact("root", "root file system", "the layers are the same; the kernel that mounts them is not", "docs/images.md"),
    Fact("mounts", "mounts", "a mount namespace has its own list", "mount_namespaces(7)"),
    Fact("devices", "files in /dev", _OWN_DEVICES, "SECURITY.md"),
    Fact("block_devices", "block devices", _OWN_DEVICES, "sysfs(5)"),
    Fact("modules", "kernel modules", "modules belong to the kernel", "proc_modules(5)"),
    Fact("cgroup", "control group", "a cgroup namespace shows the group as the root", "cgroup_namespaces(7)"),
    Fact("clock", "clock against host", "containers have the host's clock, a guest an emulated one", "time(7)"),
    Fact("start_s", "until it runs", "until the process of the workload, or QEMU, exists", "docs/bench.md"),
    Fact("ready_s", "until it is ready", "until its probe succeeds, or a guest's command runs", "docs/bench.md"),
    Fact("distribution", "distribution", "belongs to the image, and not to the kernel", "os-release(5)"),
    Fact("image", "image", "all modes read the same bytes", "docs/images.md"),
    Fact(
        "tree",
        "files of the root",
        "sha256 of path, mode, owner, kind and size of each file of the image",
        "docs/images.md",
    ),
    Fact("page", "page", "the answer to the probe of `ready`", "docs/reference.md"),
    Fact("output", "output of the command", "what it wrote to stdout", "vmctl exec --help"),
    Fact("exit_code", "exit code", "the same in every mode", "vmctl exec --help"),
)


def rows(facts: Sequence[Mapping[str, str]]) -> list[Row]:
    """Return a row for each fact that is known in a mode at least: those that differ first, in the order of FACTS."""
    found = []
    for fact in FACTS:
        values = tuple(one.get(fact.name) for one in facts)
        if any(value is not None for value in values):
            found.append(Row(fact, values, len(set(values)) == 1))
    return sorted(found, key=lambda row: row.same)
