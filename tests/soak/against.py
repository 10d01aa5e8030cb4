"""`python -m soak.against CHECKOUT -- run --network none tiny -- true`: a command here and in an earlier checkout.

Both run in each round, in random order, with pipes as streams; each checkout has its `.venv`. Prints the medians of
time and processor time, and their ratios with an interval of 95 %; exit code 1 if this checkout needs more processor
time by more than 5 %, or failed. Processor time is disturbed less by what else the host does.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import time

from bench import statistics

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LARGEST_RATIO, WARM = 1.05, 3
ROOMS = ("vmctl", "containers", "images", "vmm")


def main():
    parser = argparse.ArgumentParser(prog="against")
    parser.add_argument("checkout")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("words", nargs="+", metavar="WORD", help="of a command line of vmctl")
    args = parser.parse_args()
    for folder in (args.checkout, HERE):
        python = os.path.join(folder, ".venv", "bin", "python")
        subprocess.run([python, "-m", "compileall", "-q", *ROOMS], cwd=folder, check=True)
    choose, rounds = random.Random(args.seed), []
    for number in range(args.rounds + WARM):
        folders = [HERE, args.checkout]
        choose.shuffle(folders)
        found = {folder: _timed(folder, args.words) for folder in folders}
        if number >= WARM:
            rounds.append((found[HERE], found[args.checkout]))
    _compared("time", [(here[0], there[0]) for here, there in rounds])
    ratio = _compared("processor time", [(here[1], there[1]) for here, there in rounds])
    return int(ratio > LARGEST_RATIO)


def _timed(folder, words):
    """Run the command; return its duration and its processor time in seconds."""
    before, begin_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [os.path.join(folder, ".venv", "bin", "vmctl"), *words]
    subprocess.run(command, check=True, input=b"", capture_output=True)
    wall_s, after = time.monotonic() - begin_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _compared(what, pairs):
    """Print both medians, and print and return their ratio."""
    here_s, there_s = (statistics.median(values) for values in zip(*pairs, strict=True))
    interval = statistics.ratio_interval(pairs)
    between = f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""
    print(f"{what}: {here_s * 1000:.1f} ms, there {there_s * 1000:.1f} ms, ratio {here_s / there_s:.3f}{between}")
    return here_s / there_s


if __name__ == "__main__":
    sys.exit(main())
