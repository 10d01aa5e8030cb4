"""Evidence with which the claim of a lab holds, and changes with each of which it is refuted, for each lab."""

from bench.labs import pieces
from bench.labs.lab import Samples
from bench.probes.io import JOBS

SAME, NEW = "aaaa", "bbbb"
MIB = 1 << 20


def seconds(*values):
    return Samples("s", values)


def sizes(*values):
    return Samples("bytes", tuple(value * MIB for value in values))


def each(modes, **facts):
    """Return the evidence `MODE: NAME` of several modes; `_` in a name is a blank."""
    return {f"{mode}: {name.replace('_', ' ')}": value for mode in modes for name, value in facts.items()}


BOTH, ALL = ("container", "vm"), ("host", "container", "vm")

KERNELS = {
    "this machine: boot_id": SAME,
    "host: boot_id": SAME,
    "host: host_sees_workload": "7",
    "container: boot_id": SAME,
    "container: host_sees_workload": "8",
    "vm: boot_id": NEW,
}
TWO_IMAGES = {
    **KERNELS,
    "container of another: boot_id": SAME,
    "vm of another: boot_id": NEW,
    "container: distribution": "tiny",
    "vm: distribution": "tiny",
    "container of another: distribution": "Debian",
    "vm of another: distribution": "Debian",
}
STARTS = {
    "host: start": seconds(0.02, 0.03),
    "container: start": seconds(0.1, 0.9, 1.2),
    "vm: start": seconds(3, 4, 0.9),
    "vm: accelerator": "tcg",
}
COPIES = {
    "image": sizes(32),
    "container: disk of each instance": sizes(0.1, 0.1),
    "vm: disk of each instance": sizes(33, 34),
}
DELETED = {
    "file": sizes(16),
    "with the file: all layers": sizes(18),
    "deleted in the next layer: all layers": sizes(18.1),
    "deleted in the same layer: all layers": sizes(2),
    "deleted in the next layer: file": "gone",
}
OVERLAYS = {
    "file": sizes(100),
    "container: overlayfs": sizes(1),
    "vm: overlayfs": sizes(1),
    "block overlay (qcow2)": sizes(0.1),
}
MEMORY = {"this machine: memory_kib": "8000000", "container: memory_kib": "7999000", "vm: memory_kib": "100000"}
PIDS = {
    "host: host_sees_workload": "7",
    "container: host_sees_workload": "8",
    "container: host_process": "sh, pid 8",
    "vm: host_process": "qemu, pid 9",
}
FIRST = {
    **each(ALL, child_of_another_shell_that_was_killed="lives"),
    "container: processes on the host before": "3",
    "container: processes on the host after its first one was killed": "0",
}
ATTEMPTS = ("make a device", "mount a file system", "set a kernel setting", "set the clock")
ROOT = {
    "container: map": "0 100000 65536",
    "vm: map": "0 0 4294967295",
    **{f"container: {name}": "refused" for name in (*ATTEMPTS, "be spared when memory runs out")},
    **{f"vm: {name}": "done" for name in (*ATTEMPTS, "be spared when memory runs out")},
}
RESERVED = {"container with 1024 MiB: idle": sizes(2), "vm with 1024 MiB: idle": sizes(1100)}
GIVEN_BACK = {
    f"{mode}: memory {state}": sizes(size)
    for mode in BOTH
    for state, size in (("idle", 10), ("loaded", 74), ("freed", 11))
}
WORKS = ("sort", "memory", "getppid", "open_close", "spawn")
SPEED = {"vm: accelerator": "kvm", **{f"{mode}: {work}": seconds(1.0, 1.05, 5.0) for mode in ALL for work in WORKS}}
DENSITY = {
    "container: memory available here": sizes(8000),
    "vm: memory available here": sizes(8000),
    "container: PSS": sizes(2, 2, 2),
    "container: kernel memory": sizes(0.5),
    "vm: PSS": sizes(100, 90, 95),
    "vm: kernel memory": sizes(5),
}
PORTS = {f"{mode}: {name}": "listening; exit 0" for mode in ALL for name in ("first", "second")} | {
    "host: second": "httpd: bind: Address already in use; exit 1"
}
BRIDGE = {
    "container: page of its neighbour, by name": "hello",
    "vm: page of its neighbour, by name": "hello",
    "container: link": "cable",
    "vm: link": "own virtio_net",
    "container, network host: links": "eth0 lo wlan0",
    "container, network bridge: links": "eth0 lo",
    "host: links": "eth0 lo wlan0",
}
PRISTINE = {
    **{
        f"{mode} {number}: {way}": SAME if way == "before" else f"{number}"
        for mode, count in (("container", 4), ("vm", 2))
        for number in range(1, count + 1)
        for way in ("before", "after its own write")
    },
    "image, at the end": SAME,
}
BACK_OUT = each(BOTH, files=SAME, files_when_broken=NEW, left_of_it="nothing", files_of_the_next_one=SAME)
FILES = {**each(ALL, image=SAME, tree=SAME), **{f"{mode}: boot_id": SAME for mode in ALL}, "vm: boot_id": NEW}
LOADED = {
    f"{mode}: {state}": seconds(value, value * 1.1, value)
    for mode in BOTH
    for state, value in (("alone", 0.1), ("next to a load", 0.2), ("next to a limited load", 0.11))
}
CRASH = {
    **{
        f"{place}: {when}": place
        for place in ("this machine", "container next to it", "vm next to it")
        for when in ("before", "afterwards")
    },
    "guest that crashed: state": "failed its kernel panicked: sysrq triggered crash",
}
LADDER = {
    **{f"{name}: other namespaces": name.partition("namespace ")[2] or "none" for name in pieces.SWITCHES},
    **{f"{name}: refused": "nothing" for name in pieces.SWITCHES},
    "no capabilities: refused": "set the host name, open a raw socket",
    "system call filter: refused": "set the host name",
    "this machine: boot_id": SAME,
    "all of them: a container: boot_id": SAME,
    "another kernel: a guest: boot_id": NEW,
}
SYSTEMS = {
    "vm: its own words": "not Linux: no kernel, no files, no system calls, only this processor",
    "container: answer": "vmctl: the command /system cannot be executed: Exec format error; exit 126",
}
PROCESSORS = {
    "this machine: processor": "x86_64",
    **{f"{mode}: answer": "Exec format error; exit 126" for mode in ALL},
    "machine of that kind: its words": "another processor",
}
NESTED = {
    "this machine: boot_id": SAME,
    "guest: boot_id": NEW,
    "container in the guest: boot_id": NEW,
    "container in the guest: its pid": "1",
    "container in the guest: processes": "3",
    "container in the guest: host name": "lab-nested",
    "guest: processes": "60",
    "guest: host name": "lab-1234",
}
SIZES = {
    "layers": sizes(2),
    "layers, kernel and initrd": sizes(24),
    "disk with the same files": sizes(56),
    "layers: moved for a small change": sizes(0.01),
    "disk with the same files: moved for a small change": sizes(56),
}

SLOPES = {"container: start": seconds(*(0.1 + 0.01 * number for number in range(12))), "vm: start": seconds(5, 5, 5)}
SUMMED = {"container: RSS": sizes(8, 8), "container: PSS": sizes(3, 3), "container: lost by this machine": sizes(7)}
FILTER = {
    "host: getppid": seconds(100e-9, 110e-9),
    "container: getppid": seconds(120e-9, 125e-9),
    "container without filter: getppid": seconds(101e-9, 102e-9),
}
CARD = {"vm with a network card: start": seconds(2.2, 2.3), "vm without: start": seconds(2.0, 2.1)}
DISKS = {f"{mode}: {job}": Samples("1/s", (100.0, 200.0)) for mode in ("host", "vm") for job in JOBS} | {
    "vm: read_qd32": Samples("1/s", (300.0, 230.0))
}
PLACES = {
    "this machine: boot_id": SAME,
    **each(("container",), the_workload=f"{SAME} pid:[1]", exec=f"{SAME} pid:[1]"),
    **each(("vm",), the_workload=f"{NEW} pid:[2]", exec=f"{NEW} pid:[2]"),
}
CONSOLE = {
    "vm without messages: processor time": seconds(2.0, 2.2),
    "vm with messages: processor time": seconds(2.5, 2.1),
}
DECOMPRESSION = {
    "vm with an uncompressed kernel: processor time": seconds(2.0, 2.2),
    "vm with a compressed kernel: processor time": seconds(2.5, 2.4),
}
RESTORED = {
    "resident guest: a use": seconds(0.2, 0.25, 0.2),
    "restored guests: first use": seconds(0.3, 0.24, 0.3),
    "restored guests: later uses": seconds(0.2, 0.2),
}
TEMPLATE = {
    "guest that boots: PSS": sizes(200, 210),
    "guest that boots: start": seconds(3, 3),
    "guest from a template: PSS": sizes(70, 80),
    "guest from a template: start": seconds(1, 1),
}
ENERGY = {
    "this machine: energy counters": "read",
    "vm: accelerator": "kvm",
    "container: joules": Samples("1", (10.0, 11.0, 10.0)),
    "vm: joules": Samples("1", (12.0, 12.0, 13.0)),
}

# number of a lab -> evidence with which its claim holds, and changes with each of which it is refuted
EVIDENCE = {
    1: (
        KERNELS,
        [
            {"vm: boot_id": SAME, "vm: host_sees_workload": "9"},
            {"container: boot_id": NEW, "container: host_sees_workload": ""},
        ],
    ),
    2: (TWO_IMAGES, [{"vm: boot_id": SAME}, {"container of another: distribution": "tiny"}]),
    3: (STARTS, [{"vm: start": seconds(0.5, 0.6, 3)}, {"container: start": seconds(1.5, 2, 0.1)}]),
    4: (COPIES, [{"vm: disk of each instance": sizes(1, 1)}, {"container: disk of each instance": sizes(20, 20)}]),
    5: (
        DELETED,
        [
            {"deleted in the next layer: all layers": sizes(2.1)},
            {"deleted in the next layer: file": "there"},
            {"deleted in the same layer: all layers": sizes(18)},
        ],
    ),
    6: (OVERLAYS, [{"container: overlayfs": sizes(100)}, {"block overlay (qcow2)": sizes(7)}]),
    7: (MEMORY, [{"container: memory_kib": "130000"}, {"vm: memory_kib": "8000000"}]),
    8: (PIDS, [{"vm: host_sees_workload": "10"}, {"container: host_sees_workload": ""}]),
    9: (
        FIRST,
        [
            {"container: processes on the host after its first one was killed": "1"},
            {"container: processes on the host before": "1"},
            {"vm: child of another shell that was killed": "ended"},
        ],
    ),
    10: (
        ROOT,
        [{"container: map": "0 0 65536"}, {"container: set the clock": "done"}, {"vm: make a device": "refused"}],
    ),
    11: (RESERVED, [{"vm with 1024 MiB: idle": sizes(120)}, {"container with 1024 MiB: idle": sizes(900)}]),
    12: (GIVEN_BACK, [{"vm: memory freed": sizes(70)}, {"vm: memory loaded": sizes(10)}]),
    13: (SPEED, [{"container: getppid": seconds(1.2, 1.3, 1.2)}, {"vm: spawn": seconds(2, 3)}]),
    14: (DENSITY, [{"container: PSS": sizes(20)}, {"vm: PSS": sizes(1), "vm: kernel memory": sizes(1)}]),
    15: (PORTS, [{"host: second": "listening; exit 0"}, {"container: second": "bind: Address already in use; exit 1"}]),
    16: (
        BRIDGE,
        [
            {"vm: page of its neighbour, by name": "exit 1"},
            {"container: link": "own veth"},
            {"container, network host: links": "eth0 lo"},
        ],
    ),
    17: (
        PRISTINE,
        [{"vm 2: before": NEW}, {"container 2: after its own write": "1"}, {"image, at the end": NEW}],
    ),
    18: (
        BACK_OUT,
        [
            {"vm: files of the next one": NEW},
            {"container: left of it": "something"},
            {"container: files when broken": SAME},
        ],
    ),
    19: (FILES, [{"vm: tree": NEW}, {"vm: boot_id": SAME}]),
    20: (LOADED, [{"vm: next to a load": seconds(0.1)}, {"container: next to a limited load": seconds(0.2)}]),
    21: (CRASH, [{"container next to it: afterwards": NEW}, {"guest that crashed: state": "exited 0"}]),
    22: (
        LADDER,
        [
            {"namespace net: other namespaces": "none"},
            {"namespace pid: other namespaces": "pid uts"},
            {"no capabilities: refused": "nothing"},
            {"another kernel: a guest: boot_id": SAME},
        ],
    ),
    23: (NESTED, [{"container in the guest: boot_id": SAME}, {"container in the guest: its pid": "60"}]),
    24: (SYSTEMS, [{"vm: its own words": "none"}, {"container: answer": "exit 0"}]),
    25: (PROCESSORS, [{"container: answer": "exit 0"}, {"machine of that kind: its words": "none"}]),
    26: (SIZES, [{"disk with the same files": sizes(3)}]),
    27: (SLOPES, [{"container: start": seconds(*[0.1, 0.2, 0.1] * 4)}]),
    28: (SUMMED, [{"container: RSS": sizes(3.2, 3.2)}]),
    29: (
        FILTER,
        [{"container: getppid": seconds(101e-9)}, {"container without filter: getppid": seconds(118e-9)}],
    ),
    30: (CARD, [{"vm with a network card: start": seconds(1.9, 2.0)}]),
    31: (DISKS, [{"vm: read_qd32": Samples("1/s", (100.0,))}]),
    32: (
        PLACES,
        [
            {"vm: exec": f"{SAME} pid:[1]"},
            {"container: exec": f"{SAME} pid:[3]"},
            {"vm: exec": f"{SAME} pid:[1]", "vm: the workload": f"{SAME} pid:[1]"},
        ],
    ),
    33: (
        {"claim 01": "3.34 -> 1.69 s is 49.4 % less", "claim 02": "5 x 36 = 180"},
        [{"claim 01": "0.82 -> 0.6 s is a reduction of 73.2 %"}, {"claim 02": "43274 / 60 = 724.37"}],
    ),
    34: (CONSOLE, [{"vm with messages: processor time": seconds(2.0, 2.4)}]),
    35: (DECOMPRESSION, [{"vm with a compressed kernel: processor time": seconds(2.03, 2.4)}]),
    36: (
        RESTORED,
        [{"restored guests: first use": seconds(0.2, 0.21)}, {"resident guest: a use": seconds(0.3, 0.3, 0.3)}],
    ),
    37: (TEMPLATE, [{"guest from a template: PSS": sizes(190, 195)}, {"guest that boots: PSS": sizes(75, 60)}]),
    38: (ENERGY, [{"vm: joules": Samples("1", (10.0, 11.0, 10.1))}]),
}
