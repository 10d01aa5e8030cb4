"""`python -m soak.clones [--rounds 40] [--count 1000] [--workers 8] [--mib 200]`: what a clone costs, as root.

First an instance with a file of so many MiB becomes a snapshot. Then each round starts a clone of it and an instance of
the image with the same command, in turn, by whole commands, and removes both. Then the workers start and remove so many
clones together, and each clone must have the file and not what another one has written. Exit code 1 if the median clone
takes over 10 ms more than the median start, if a clone failed, or if anything is left.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from support.commands import VMCTL
from support.roots import separate_root

from soak import left

MOST_MORE_S = 0.010
SNAPSHOT, ORIGIN = f"{left.PREFIX}golden", f"{left.PREFIX}origin"
COMMAND = ("sh", "-c", "exec sleep 100000")


def main():
    parser = argparse.ArgumentParser(prog="clones")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--mib", type=int, default=200)
    parser.add_argument("--mode", default="container")
    args = parser.parse_args()
    with separate_root("images") as root:
        _prepare(args)
        try:
            wrong = _compared(args) + _together(args)
        finally:
            _vmctl("rm", "-f", ORIGIN)
            _vmctl("snapshot", "rm", SNAPSHOT)
        found = left.left(root)
        print(f"{len(found)} objects left", *found[:10], sep="\n", flush=True)
        return int(bool(wrong or found))


def _vmctl(*words):
    done = subprocess.run([VMCTL, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"vmctl {' '.join(words)}: {done.stderr}")
    return done


def _plain(mode, name):
    return _vmctl("run", "-d", "--mode", mode, "--name", name, "tiny", "--", *COMMAND)


def _prepare(args):
    _plain(args.mode, ORIGIN)
    script = f"mkdir /data; head -c {args.mib << 20} /dev/urandom >/data/db; echo golden >/data/mark"
    _vmctl("exec", ORIGIN, "--", "sh", "-c", script)
    print(_vmctl("snapshot", ORIGIN, SNAPSHOT).stderr.splitlines()[0], flush=True)


def _timed(start, *words):
    begin_s = time.monotonic()
    start(*words)
    return time.monotonic() - begin_s


def _compared(args):
    """Return 1 if a clone takes too long, compared with a plain start."""
    clone, plain = f"{left.PREFIX}clone", f"{left.PREFIX}plain"
    starts = {
        "clone": lambda: _vmctl("clone", "-q", "--name", clone, SNAPSHOT),
        "plain": lambda: _plain(args.mode, plain),
    }
    seen = {name: [] for name in starts}
    for number in range(args.rounds + 2):  # the first two are not counted
        for name in sorted(starts, reverse=bool(number % 2)):
            took_s = _timed(starts[name])
            seen[name] += [took_s] if number > 1 else []
        _vmctl("rm", "-f", clone, plain)
    medians = {name: statistics.median(times) for name, times in seen.items()}
    more = statistics.median(one - other for one, other in zip(seen["clone"], seen["plain"], strict=True))
    print(
        f"{args.rounds} rounds: clone {medians['clone'] * 1000:.1f} ms, plain start {medians['plain'] * 1000:.1f} ms, "
        f"median of the differences {more * 1000:+.1f} ms",
        flush=True,
    )
    return int(more > MOST_MORE_S)


def _together(args):
    """Return how many clones were not as they should be, of those that the workers start at the same time."""
    begin_s = time.monotonic()
    workers = [_forked(args, number) for number in range(args.workers)]
    wrong = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers)
    took_s = time.monotonic() - begin_s
    print(
        f"{args.count} clones by {args.workers} workers, each checked, written to and removed: {took_s:.1f} s, "
        f"{args.count / took_s:.1f} a second, {wrong} workers failed",
        flush=True,
    )
    return wrong


def _forked(args, worker):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for number in range(worker, args.count, args.workers):
                _one(f"{left.PREFIX}w{number}", args.mib << 20)
            code = 0
        except SystemExit as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return pid


def _one(name, size_bytes):
    _vmctl("clone", "-q", "--name", name, SNAPSHOT)
    script = f"[ $(stat -c %s /data/db) = {size_bytes} ] && cat /data/mark && echo {name} >/data/mark"
    if (seen := _vmctl("exec", name, "--", "sh", "-c", script).stdout) != "golden\n":
        raise SystemExit(f"{name} has {seen!r}")
    _vmctl("rm", "-f", name)


if __name__ == "__main__":
    sys.exit(main())
