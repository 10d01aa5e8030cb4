"""`python -m soak --cycles 2000 --mode container [--seed S] [--first N] [--user]`: exit code 1 if anything was left.

A cycle depends on the seed and its number only, so `--first N --cycles 1` repeats its commands; the moments differ.
"""

import argparse
import os
import random
import shutil
import socket
import sys
import time

from support.roots import separate_root

from soak import left
from soak.cycle import Cycle


def main():
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--cycles", type=int, default=2000)
    parser.add_argument("--seconds", type=float, help="end after this time")
    parser.add_argument("--mode", action="append", help="container, host or vm; repeatable")
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--first", type=int, default=1, help="number of the first cycle")
    parser.add_argument("--user", action="store_true", help="as an ordinary user of a private mount namespace")
    parser.add_argument("--root", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.user:
        return _as_user(args)
    if args.root:
        return _soak(args)
    with separate_root("images", "cache") as root:
        return _again(args, root)


def _words(args, root):
    modes = [word for mode in args.mode or ["container"] for word in ("--mode", mode)]
    seconds = ["--seconds", str(args.seconds)] if args.seconds else []
    numbers = ["--cycles", str(args.cycles), "--first", str(args.first), "--seed", args.seed]
    return [sys.executable, "-m", "soak", "--root", root, *modes, *seconds, *numbers]


def _again(args, root):
    """Run this program again with the root in its command line, by which its forked commands are recognised."""
    return os.spawnve(os.P_WAIT, sys.executable, _words(args, root), {**os.environ, "VMCTL_ROOT": root})


def _as_user(args):
    from support.ordinary_user import OrdinaryUser

    with OrdinaryUser() as user:
        user.give_image()
        if "vm" in (args.mode or ()):
            user.give_kernel()
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        words, options = user.command(*_words(args, user.home), folder=here)
        options["env"].update(PYTHONPATH=here)
        import subprocess

        return subprocess.run(words, check=False, **options).returncode


def _soak(args):
    durations, begin_s, failed, number = {}, time.monotonic(), 0, args.first
    modes = args.mode or ["container"]
    for number in range(args.first, args.first + args.cycles):
        if args.seconds and time.monotonic() - begin_s > args.seconds:
            number -= 1
            break
        chance = random.Random(f"{args.seed}.{number}")
        cycle = Cycle(args.root, chance.choice(modes), number, chance, durations, _free_port(chance))
        if wrong := cycle.run():
            failed += 1
            _report(args, cycle, number, wrong)
            break  # what is left would be found after every other cycle
        _forget(args.root)
        if number % 100 == 0:
            print(f"{number - args.first + 1} cycles, {time.monotonic() - begin_s:.0f} s", flush=True)
    count = number - args.first + 1
    print(
        f"{count} cycles of {', '.join(modes)} with seed {args.seed}, {time.monotonic() - begin_s:.0f} s, "
        f"{failed} left something",
        flush=True,
    )
    return int(bool(failed))


def _report(args, cycle, number, wrong):
    print(f"cycle {number} (seed {args.seed}, mode {cycle.mode}):")
    for done in cycle.log:
        killed = "" if done.killed_after_s is None else f", SIGKILL after {done.killed_after_s * 1000:.1f} ms"
        print(f"  vmctl {' '.join(done.words)}: {done.code}{killed}")
    print("\n".join(f"  left: {text}" for text in wrong))
    with open(os.path.join(args.root, "output"), encoding="utf-8", errors="replace") as file:
        print(file.read()[-4000:], flush=True)


def _forget(root):
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if os.path.isdir(path) and name.startswith(left.PREFIX):
            shutil.rmtree(path)
        elif name == "output" or name.startswith(left.PREFIX):
            os.unlink(path)


def _free_port(chance):
    while True:
        port = chance.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


if __name__ == "__main__":
    sys.exit(main())
