"""`python -m soak.console`: what the serial console takes of a guest's boot.

Starts the same guest alternately with `vm: {console: late}` and `live`, and prints the medians of both, in seconds: the
phase of the kernel, the whole start, and the differences within each round, with the lines that the kernel wrote.
Exit code 1 if something is left. On a busy host read the differences as shares.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from support.commands import VMCTL, inspect, ok, wait_for
from support.roots import separate_root

from soak import left
from vmctl import paths

SPEC = "image: tiny\ncommand: [sleep, '100000']\nnetwork: none\nvm: {console: %s}\n"
WAYS = ("late", "live")
LAST = "Run /init as init process"  # init/main.c


def main():
    parser = argparse.ArgumentParser(prog="console")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with separate_root("images", "cache") as root:
        try:
            rounds = [{way: _start(root, way) for way in WAYS} for _ in range(args.rounds)]
        finally:
            for name in os.listdir(paths.instances_root()):
                subprocess.run([VMCTL, "rm", "-f", name], capture_output=True)
        _show(rounds)
        found = left.left(root)
        print(f"{len(found)} objects left")
        return int(bool(found))


def _start(root, way):
    """Start a guest, and return the seconds of its kernel and of the whole, and the lines on its console."""
    name = f"{left.PREFIX}{way}"
    spec = os.path.join(root, f"{name}.yaml")
    with open(spec, "w", encoding="utf-8") as file:
        file.write(SPEC % way)
    ok("up", "--quiet", "--mode", "vm", spec, timeout_s=600)
    wait_for(lambda: LAST in ok("logs", "--boot", name))
    (start,) = json.loads(ok("timeline", "--format", "json", name))
    kernel = next(bar for bar in start["bars"] if bar["name"] == "kernel")
    lines = ok("logs", "--boot", name).count("\n")
    accelerator = inspect(name)["accelerator"]
    ok("rm", "-f", name)
    return {"kernel_s": kernel["took_s"], "start_s": start["ready_s"], "lines": lines, "accelerator": accelerator}


def _show(rounds):
    one = rounds[0]["live"]
    print(f"{len(rounds)} rounds, accelerator {one['accelerator']}, {one['lines']} lines on the console")
    for what in ("kernel_s", "start_s"):
        late, live = (statistics.median(one[way][what] for one in rounds) for way in WAYS)
        added = statistics.median(one["live"][what] - one["late"][what] for one in rounds)
        print(
            f"{what:9} late {late:7.3f}  live {live:7.3f}  added in the same round {added:+7.3f} ({added / late:+.0%})"
        )


if __name__ == "__main__":
    sys.exit(main())
