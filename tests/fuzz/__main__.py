"""The long form: `python -m fuzz [--runs N] [TARGET...]`, with atheris, which keeps inputs that reach new code.

Each target runs in a separate process. Every kind of uncaught exception is reported with an input that causes it.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def main():
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument(
        "--out", default=".cache/fuzz", help="folder of the inputs that were found (default: .cache/fuzz)"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return _fuzz(args.targets[0], args.runs, args.out)
    args.out = os.path.abspath(args.out)
    with tempfile.TemporaryDirectory(prefix="vmctl-fuzz-", dir=MEMORY) as root:
        os.environ["VMCTL_ROOT"] = root
        from fuzz.targets import TARGETS

        return max([_report(name, args) for name in args.targets or TARGETS])


def _report(name, args):
    """Run one target in a separate process and print its line; return 1 if anything was found."""
    begin = time.monotonic()
    os.makedirs(args.out, exist_ok=True)
    found = os.path.join(args.out, f"{name}.json")
    if os.path.exists(found):
        os.unlink(found)
    words = [sys.executable, "-m", "fuzz", "--one", "--runs", str(args.runs), "--out", args.out, name]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        with open(found, encoding="utf-8") as file:
            result = json.load(file)
    except FileNotFoundError:
        result = {"runs": 0, "faults": {}}
    kinds = result["faults"]
    if result["runs"] < args.runs:
        kinds["the process ended early"] = {"trace": done.stderr[-2000:]}
    print(
        f"{name}: {result['runs']} inputs, {time.monotonic() - begin:.0f} s, {len(kinds)} kinds of faults", flush=True
    )
    for kind, fault in kinds.items():
        last = fault["trace"].strip().splitlines()[-1]
        print(f"  {kind}\n    {last[:200]}\n    input: {fault.get('input', '')[:200]}", flush=True)
    return int(bool(kinds))


def _fuzz(name, runs, out):
    import atheris

    with atheris.instrument_imports(
        include=["vmctl", "images", "vmm", "containers", "bench"], enable_loader_override=False
    ):
        from fuzz.targets import TARGETS
    from fuzz.check import fault
    from fuzz.mutate import mutated

    target, faults, count = TARGETS[name], {}, 0

    def write():
        path = os.path.join(out, f"{name}.json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"runs": count, "faults": faults}, file, indent=1)
        os.replace(path + ".new", path)

    def one(data):
        nonlocal count
        count += 1
        found = fault(target, data)
        if found and found[0] not in faults:
            faults[found[0]] = {"input": repr(data), "trace": found[1]}
            write()
        if count == runs:
            write()

    def mutator(data, size_max, seed):
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return atheris.Mutate(data, size_max)
        return mutated(target._replace(seeds=(data or b" ", *target.seeds)), chance)[:size_max]

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            with open(os.path.join(folder, f"seed{number}"), "wb") as file:
                file.write(seed)
        flags = [f"-runs={runs}", "-max_len=65536", "-rss_limit_mb=4096", "-timeout=60", "-close_fd_mask=0"]
        atheris.Setup([sys.argv[0], *flags, folder], one, custom_mutator=mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
