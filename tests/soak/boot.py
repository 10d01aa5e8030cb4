"""`python -m soak.boot --rounds 10`: what each saving of a guest's cold start gives, alone and all together, as root.

Starts the command line of a real guest without libvirt, in each round once in each way, in random order: without the
savings of docs/boot.md, with each one alone, and with all. Prints the medians of QEMU's processor time and of the time
until the first mark of init and until the workload's first byte, with their ratios to the start without savings. Exit
code 1 if all together need more than 0.80 of its processor time until the first byte. A saving that this host lacks is
left out.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import time

from support.roots import separate_root

from bench.peers import guests, savings
from bench.peers.command import spawn
from images.kernels import kernel
from vmctl.linux import processes

LIMIT_S = 120.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
LOOK_S = 0.002
UTIME = 11  # its place behind the name, as `processes.fields` counts
MOMENTS = ("init", "first byte")


def main():
    parser = argparse.ArgumentParser(prog="boot")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with separate_root("images", "cache"), guests.prepared() as (argv, folder):
        return _compared(_measured(argv, folder, args.rounds, random.Random(args.seed)))


def _measured(argv, folder, rounds, choose):
    """Return the moments of each start, for each way."""
    ways = savings.ways(argv, kernel.find("debian").vmlinuz)
    found = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first one is not counted
        names = list(ways)
        choose.shuffle(names)
        for name in names:
            seen = _start(ways[name], folder)
            found[name] += [seen] if number else []
    return found


def _start(argv, folder):
    """Return moment -> QEMU's processor time until then, and the time since it was executed, in seconds."""
    for name in guests.outputs(folder):
        os.unlink(name)
    begin_s, found = time.monotonic(), {}
    pid = spawn(argv, os.path.join(folder, "qemu.log"))
    try:
        while len(found) < len(MOMENTS):
            for moment in {_moment(name) for name in guests.outputs(folder)} - {None, *found}:
                found[moment] = (_cpu_s(pid), time.monotonic() - begin_s)
            assert not guests.ended(pid), f"QEMU has ended: {folder}/qemu.log"
            assert time.monotonic() - begin_s < LIMIT_S, f"no first byte within {LIMIT_S:g} s"
            time.sleep(LOOK_S)
        return found
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _cpu_s(pid):
    """Return the processor time of a process: utime and stime of proc(5)."""
    return sum(map(int, processes.fields(pid)[UTIME : UTIME + 2])) * TICK_S


def _moment(path):
    """Return the moment that the content of an output shows."""
    with open(path, errors="replace") as file:
        head = file.read(64)
    words = {"init ": MOMENTS[0], guests.PROGRAM[-1]: MOMENTS[1]}
    return next((moment for word, moment in words.items() if head.startswith(word)), None)


def _compared(found):
    """Print a line for each way, and return the exit code."""
    print(f"{len(found[savings.ALL])} rounds; QEMU's processor time and the time, in seconds,", end=" ")
    print(f"with the ratio to `{savings.NONE}`")
    for name, starts in found.items():
        texts = []
        for moment in MOMENTS:
            for which, what in enumerate(("cpu", "time")):
                value, first = (_median(one, moment, which) for one in (starts, found[savings.NONE]))
                texts.append(f"{moment} {what} {value:.2f} ({value / first:.2f})")
        print(f"{name:20} {'  '.join(texts)}")
    ratio = _median(found[savings.ALL], MOMENTS[1], 0) / _median(found[savings.NONE], MOMENTS[1], 0)
    return int(ratio > savings.AT_MOST)


def _median(starts, moment, which):
    return statistics.median(one[moment][which] for one in starts)


if __name__ == "__main__":
    sys.exit(main())
