"""The footprint of instances: measured on processes of known memory, and parsed from the texts of other kernels."""

import mmap
import os

import pytest
from support.commands import free_port, inspect, ok

from vmctl.linux import memory
from vmctl.linux.cgroups import split
from vmm.footprint import without_guest_bytes

MIB = 1024**2
MAP_NORESERVE = 0x4000  # mman-common.h; the module has it from Python 3.13 on

# memory.stat of a group with one shell in it, from Linux 6.18 on v1
V1 = """cache 774144
rss 57344
shmem 0
mapped_file 700416
pgpgin 211
total_cache 1774144
total_rss 157344
total_shmem 0
total_unevictable 0
"""
# the same from Debian 12, Linux 6.1, on v2
V2 = """anon 1720320
file 9555968
kernel 1900544
kernel_stack 65536
pagetables 253952
sec_pagetables 0
percpu 2144
sock 0
vmalloc 0
shmem 0
slab_reclaimable 1216104
slab_unreclaimable 265400
slab 1481504
workingset_refault_anon 0
"""
# the same from Debian 11, Linux 5.10, which has no sum of the kernel's parts
V2_OLD = """anon 270336
file 0
kernel_stack 49152
percpu 0
sock 0
shmem 0
slab_reclaimable 143520
slab_unreclaimable 106624
slab 250144
pgfault 1056
"""


def test_both_cgroup_versions_are_split_into_the_same_parts():
    assert split(1, V1, "106496\n") == {"anon": 157344, "file": 1774144, "kernel": 106496}
    assert split(1, V1.partition("total_cache")[0]) == {"anon": 57344, "file": 774144}
    assert split(2, V2) == {"anon": 1720320, "file": 9555968, "kernel": 1900544}
    assert split(2, V2_OLD) == {"anon": 270336, "file": 0, "kernel": 49152 + 250144}
    assert split(2, "") == split(1, "") == {}


def test_the_kernels_own_memory_is_read():
    text = "MemTotal:  8104456 kB\nSlab:   194860 kB\nHugePages_Total:       0\nPercpu:     1056 kB\n"
    assert memory.meminfo(text) == {"MemTotal": 8104456 * 1024, "Slab": 194860 * 1024, "Percpu": 1056 * 1024}
    assert {"Slab", "PageTables", "KernelStack"} <= set(memory.kernel())
    assert all(size > 0 for name, size in memory.kernel().items() if name != "SecPageTables")


def test_pss_is_reported_by_role_and_never_estimated():
    with mmap.mmap(-1, 64 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        before = memory.pss_by_role({"me": [os.getpid()], "nobody": [], "gone": [2**22 + 1]})
        taken.write(b"x" * 16 * MIB)
        after = memory.pss_by_role({"me": [os.getpid()]})
    assert set(before) == {"me"}
    assert 15 * MIB < after["me"] - before["me"] < 48 * MIB  # the string itself takes memory for a moment too


def test_the_guests_memory_is_identified():
    """A mapping of a guest's size, of which 16 MiB are touched, in this process in place of QEMU."""
    page = os.sysconf("SC_PAGESIZE")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    with mmap.mmap(-1, 4096 * MIB, flags) as guest:
        guest.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, 16 * MIB, page):
            guest[at] = 1
        with open("/proc/self/smaps", encoding="utf-8") as file:
            smaps = file.read()
    resident = sum(int(line.split()[1]) * 1024 for line in smaps.splitlines() if line.startswith("Rss:"))
    assert resident - without_guest_bytes(smaps, 4096 * MIB) == 16 * MIB
    assert without_guest_bytes(smaps, 1024**5) is None


TRANSLATOR = """55d0f0000000-55d0f0400000 r-xp 00000000 fe:00 77   /usr/bin/qemu-system-x86_64
Size:               4096 kB
Rss:                3000 kB
7f0000000000-7f0040000000 rwxp 00000000 00:00 0
Size:            1048576 kB
Rss:               65536 kB
7f1000000000-7f1010000000 rw-p 00000000 00:00 0
Size:             262144 kB
Rss:              131072 kB
7f2000000000-7f2020000000 ---p 00000000 00:00 0
Size:             524288 kB
Rss:                   0 kB
"""


def test_translated_code_is_not_mistaken_for_the_guests_memory():
    assert without_guest_bytes(TRANSLATOR, 256 * MIB) == (3000 + 65536) * 1024
    assert without_guest_bytes(TRANSLATOR, 255 * MIB) == (3000 + 65536) * 1024  # merged with a neighbour


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")
@pytest.mark.parametrize("mode", ["container", "host"])
def test_each_process_and_each_shared_file_is_named(guest_root, tmp_path, mode):
    spec = tmp_path / "known.yaml"
    spec.write_text(f"image: tiny\ncommand: [sleep, '1000']\nports: ['{free_port()}:8000']\n")
    ok("up", "--mode", mode, str(spec))
    try:
        found = inspect("known")["footprint"]
    finally:
        ok("rm", "-f", "known")
    assert {"workload", "supervisor", "forwarder"} == set(found["pss_by_role"])
    assert found["pss_bytes"] == sum(found["pss_by_role"].values())
    assert found["vmm_bytes"] is None
    assert found["shared_disk_bytes"] == sum(os.stat(path).st_blocks * 512 for path in found["shared_files"]) > 0
