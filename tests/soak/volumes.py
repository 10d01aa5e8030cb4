"""`python -m soak.volumes --rounds 10`: a volume of a guest against the same virtiofsd started by hand, as root.

One guest has both, and each round measures both, in turn, by the guest's clock: so the load of the host is the same
for them. Prints for each kind of work both medians and the ratio of the speeds; exit code 1 if one is below 0.9.
"""

import argparse
import os
import statistics
import subprocess
import sys

from support.commands import VMCTL
from support.roots import separate_root

from vmctl import backends, engine
from vmctl.spec.workload import Bytes, Resources, Volume, Workload
from vmm import volumes
from vmm.volumes import server

LEAST_RATIO = 0.9
MIB, COUNT = 64, 400
FRESH = "echo 3 >/proc/sys/vm/drop_caches"
WORK = {  # kind -> what comes before, what is measured; in the folder
    "write": ("rm -rf *", f"dd if=/dev/zero of=large bs=1M count={MIB} conv=fsync 2>/dev/null"),
    "read": (FRESH, "dd if=large of=/dev/null bs=1M 2>/dev/null"),
    "create": (FRESH, f"i=0; while [ $i -lt {COUNT} ]; do echo small >$i; i=$((i+1)); done"),
    "list": (FRESH, "ls -l >/dev/null"),
    "small": (FRESH, f"i=0; while [ $i -lt {COUNT} ]; do read x <$i; i=$((i+1)); done"),
    "remove": ("true", f"i=0; while [ $i -lt {COUNT} ]; do rm $i; i=$((i+1)); done"),
}
OURS, BY_HAND = "/ours", "/by-hand"


def main():
    parser = argparse.ArgumentParser(prog="volumes")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    with separate_root("images", "cache") as root:
        folders = [os.path.join(root, name) for name in ("ours", "by-hand")]
        for folder in folders:
            os.mkdir(folder)
        return _compared(_measured(folders, args.rounds))


def _measured(folders, rounds):
    """Return the seconds of each kind of work, for each folder."""
    places = (OURS, BY_HAND)
    work = Workload(
        "volumes",
        "tiny",
        ("sleep", "100000"),
        volumes=tuple(map(Volume, folders, places)),
        network="none",
        resources=Resources(memory_bytes=Bytes(256 << 20)),
    )
    found = {(kind, place): [] for kind in WORK for place in places}
    server._start = _second_by_hand(server._start, folders[1])
    with engine.running(work, backends.load("vm")):
        for number in range(rounds + 1):  # the first one is not counted
            for place in places[:: 1 if number % 2 else -1]:
                for kind, seconds in zip(WORK, _times(place), strict=True):
                    found[kind, place] += [seconds] if number else []
    return found


def _second_by_hand(ours, folder):
    """Return what starts the first file server as ever, and the second one without our confinement."""
    calls = []

    def start(inst, own_ids, tree, listener, log):
        calls.append(listener)
        if len(calls) == 1:
            return ours(inst, own_ids, tree, listener, log)
        words = [volumes.PROGRAM, f"--fd={listener}", "-f", "-o", f"source={folder},cache=auto,xattr,log_level=err"]
        return subprocess.Popen(words, pass_fds=[listener], stderr=subprocess.DEVNULL)

    return start


def _times(place):
    steps = "".join(f"{before}\nnow; {step}\nnow\n" for before, step in WORK.values())
    script = f"cd {place}\nnow() {{ read up rest </proc/uptime; echo $up; }}\n{steps}"
    words = [VMCTL, "exec", "volumes", "--", "sh", "-c", script]
    seen = subprocess.run(words, capture_output=True, text=True, check=True)
    clock = list(map(float, seen.stdout.split()))
    return [end - begin for begin, end in zip(clock[::2], clock[1::2], strict=True)]


def _compared(found):
    worst = 1.0
    for kind in WORK:
        ours_s, hand_s = (statistics.median(found[kind, place]) for place in (OURS, BY_HAND))
        ratio = hand_s / ours_s if ours_s else 1.0
        worst = min(worst, ratio)
        print(f"{kind}: {ours_s:.3f} s, by hand {hand_s:.3f} s, ratio of speeds {ratio:.2f}")
    return int(worst < LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
