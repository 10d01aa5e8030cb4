"""`python -m soak.dax`: memory of guests that read a large image, with its layer read in place and as a disk, as root.

Makes an image with 400 files of random bytes, 207 MB, and starts three guests of 400 MiB that read all of them, first
with the layer as a disk, then as persistent memory (vmm/pmem.py), `--rounds` times. Prints the medians of their QEMUs'
memory (Pss, in which pages that several share count once) and processor time until the files were read. Exit code 1 if
the memory is more than 0.75 of that without DAX.
"""

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack

from support import images_made

from images.store import store
from vmctl import backends, engine, paths
from vmctl.linux import memory, processes
from vmctl.spec.workload import Bytes, Ready, Resources, Workload
from vmm import pmem

GOAL = 0.75
FILES, FILE_BYTES = 400, 517_500
GUEST_BYTES = 400 << 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
UTIME = 11
WAYS = {"as a disk": 1 << 60, "read in place": pmem.LEAST_BYTES}  # name -> the least size of a layer that is memory
COMMAND = ("sh", "-c", "cat /files/* >/dev/null; echo done; sleep 100000")


def main():
    parser = argparse.ArgumentParser(prog="dax")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guests", type=int, default=3)
    args = parser.parse_args()
    kept = {name: os.path.realpath(store.path(name)) for name in ("kernels", "packages")}
    tiny, cache = store.find("tiny"), os.path.realpath(paths.cache_root())
    with tempfile.TemporaryDirectory(prefix="vmctl-dax-") as root:
        os.environ["VMCTL_ROOT"] = root
        os.makedirs(store.path())
        os.makedirs(cache, exist_ok=True)
        os.symlink(cache, paths.cache_root())
        for name, folder in kept.items():
            os.symlink(folder, store.path(name))
        images_made.add("large", tiny, _tree(root))
        rounds = [
            {name: _run(least_bytes, args.guests) for name, least_bytes in WAYS.items()} for _ in range(args.rounds)
        ]
    return _compared(rounds, args.guests)


def _tree(root):
    folder = os.path.join(root, "tree", "files")
    os.makedirs(folder)
    for number in range(FILES):
        with open(os.path.join(folder, str(number)), "wb") as file:
            file.write(os.urandom(FILE_BYTES))
    return os.path.dirname(folder)


def _run(least_bytes, guests):
    """Return the memory of all guests' QEMUs in bytes and their processor time in seconds."""
    pmem.LEAST_BYTES = least_bytes
    with ExitStack() as stack:
        pids = []
        for number in range(guests):
            work = Workload(
                name=f"reader-{number}",
                image="large",
                command=COMMAND,
                network="none",
                ready=Ready(log="done", timeout_s=600.0),
                resources=Resources(memory_bytes=Bytes(GUEST_BYTES)),
            )
            start = stack.enter_context(engine.running(work, backends.load("vm")))
            pids.append(start.inst.state.pid)
        spent = [sum(map(int, processes.fields(pid)[UTIME : UTIME + 2])) * TICK_S for pid in pids]
        return memory.pss_by_role({"qemu": pids})["qemu"], sum(spent)


def _compared(rounds, guests):
    ratios = []
    read_mb = FILES * FILE_BYTES // 10**6
    print(f"{len(rounds)} rounds of {guests} guests with {GUEST_BYTES >> 20} MiB that read {read_mb} MB")
    first, second = WAYS
    for place, (what, scale) in enumerate((("memory, MiB", 1 << 20), ("processor time, s", 1))):
        values = [statistics.median(one[name][place] / scale for one in rounds) for name in WAYS]
        ratios.append(values[1] / values[0])
        print(f"{what}: {first} {values[0]:.1f}, {second} {values[1]:.1f}, ratio {ratios[-1]:.2f}")
    return int(ratios[0] > GOAL)


if __name__ == "__main__":
    sys.exit(main())
