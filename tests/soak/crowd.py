"""`python -m soak.crowd --count 300`: containers that run at the same time, each started by a separate command.

Prints the start of the first and the last ones, `ps`, `stats --no-stream`, the memory of supervisors with and without a
health check and a restart policy, and the end of all; exit code 1 if the last start takes more than 1.5 times as long
as the first, or `ps` more than a second. On a busy host the processor time is the better measure.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from support.commands import VMCTL
from support.roots import separate_root

from soak import left
from vmctl import paths
from vmctl.instances import instance
from vmctl.linux import memory

SAMPLES = 15  # starts of which the median is taken
LARGEST_RATIO, LONGEST_PS_S = 1.5, 1.0
SETTLE_S = 5.0
RESTARTED, CHECKED = "restart: always\n", "health: {exec: ['true'], interval: 2s}\n"
KEPT = {"plain": "", "restarted": RESTARTED, "checked": CHECKED, "both": RESTARTED + CHECKED}


def main():
    parser = argparse.ArgumentParser(prog="crowd")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--network", default="bridge")
    args = parser.parse_args()
    with separate_root("images") as root:
        try:
            return _crowd(args, root)
        finally:
            for name in os.listdir(paths.instances_root()):
                subprocess.run([VMCTL, "rm", "-f", name], capture_output=True)


def _crowd(args, root):
    times = [_start(root, args.network, number) for number in range(args.count)]
    ratio = _compared("start", [wall for wall, _ in times])
    _compared("processor time of a start", [cpu for _, cpu in times])
    ps_s = _median("ps", [VMCTL, "ps"])
    _median("stats", [VMCTL, "stats", "--no-stream"])
    _supervisors(root, args.network)
    rows = json.loads(subprocess.run([VMCTL, "ps", "--format", "json"], capture_output=True, check=True).stdout)
    running = sum(row["status"] == "running" for row in rows)
    removals = [_timed([VMCTL, "rm", "-f", f"{left.PREFIX}{number}"])[0] for number in range(args.count)]
    print(f"{running - len(KEPT)} of {args.count} run")
    print(f"removal: first {removals[0] * 1000:.1f} ms, last {removals[-1] * 1000:.1f} ms")
    for name in KEPT:
        subprocess.run([VMCTL, "rm", "-f", f"{left.PREFIX}{name}"], check=True, capture_output=True)
    found = left.left(root)
    print(f"{len(found)} objects left")
    return int(bool(found) or running < args.count + len(KEPT) or ratio > LARGEST_RATIO or ps_s > LONGEST_PS_S)


def _median(what, words):
    """Print the medians of the time and of the processor time of a command, and return the first in seconds."""
    times = [_timed(words) for _ in range(5)]
    wall_s, cpu_s = (statistics.median(values) for values in zip(*times, strict=True))
    print(f"{what}: {wall_s * 1000:.0f} ms, {cpu_s * 1000:.0f} ms of processor time")
    return wall_s


def _supervisors(root, network):
    """Print the memory of the supervisor of an instance that is kept in each way."""
    for name, keys in KEPT.items():
        _start(root, network, name, keys)
    time.sleep(SETTLE_S)  # a check has run, and memory for its start is given back
    for name in KEPT:
        pid = instance.load(f"{left.PREFIX}{name}").state.supervisor_pid
        bytes_ = memory.pss_by_role({"supervisor": [pid]})["supervisor"]
        print(f"supervisor, {name}: {bytes_ / 1024:.0f} KiB (PSS)")


def _compared(what, values_s):
    """Print the median of the first and of the last ones, and return their ratio."""
    first_s, last_s = (statistics.median(part) for part in (values_s[:SAMPLES], values_s[-SAMPLES:]))
    print(f"{what}: first {first_s * 1000:.1f} ms, last {last_s * 1000:.1f} ms, ratio {last_s / first_s:.2f}")
    return last_s / first_s


def _start(root, network, number, keys=""):
    path = os.path.join(root, "crowd.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"name: {left.PREFIX}{number}\nimage: tiny\ncommand: [sleep, '100000']\nnetwork: {network}\n{keys}")
    return _timed([VMCTL, "up", "-q", path])


def _timed(words):
    """Run a command; return its duration and its processor time in seconds."""
    before, begin_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    wall_s, after = time.monotonic() - begin_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
