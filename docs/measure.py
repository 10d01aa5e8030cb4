#!/usr/bin/env python3
"""Measure anew what docs/results.md shows and bench/reference contains. `make reference` runs it as root.

Each block of docs/results.md that begins with `$ vmctl` gets the output of that command. Nothing is written unless all
commands have succeeded: half of the numbers of one machine and half of another would be no reference.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VMCTL = os.path.join(ROOT, ".venv", "bin", "vmctl")
RESULTS = os.path.join(ROOT, "docs", "results.md")
REFERENCE = os.path.join(ROOT, "bench", "reference")
WORKLOAD = os.path.join(ROOT, "configs", "workloads", "web.yaml")
BLOCK = re.compile(r"(```console\n\$ (vmctl[^\n]+)\n).*?(```)", re.DOTALL)
# folder in bench/reference -> metrics; the names end with the accelerator of the guests
METRICS = {"web-tcg": "boot,memory,disk,teardown", "web-tcg-runtime": "cpu,syscall,io"}
QUIET_LOAD = 0.5  # per processor


def main() -> None:
    """Measure, then write."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load > QUIET_LOAD * cpus:
        sys.exit(f"the load of this host is {load:.1f} on {cpus} processors: its numbers would be no reference")
    with tempfile.TemporaryDirectory() as folder:
        for name, metrics in METRICS.items():
            out = os.path.join(folder, name)
            measured(["vmctl", "bench", WORKLOAD, "--accel", "tcg", "--metrics", metrics, "--out", out], codes=(0,))
            measured(["vmctl", "bench", "verify", out], codes=(0,))
        with open(RESULTS, encoding="utf-8") as file:
            text = BLOCK.sub(lambda block: block[1] + measured(shlex.split(block[2])) + block[3], file.read())
        for name in METRICS:
            for part in ("result.json", "report.md"):
                shutil.copyfile(os.path.join(folder, name, part), os.path.join(REFERENCE, name, part))
    with open(RESULTS, "w", encoding="utf-8") as file:
        file.write(text)


def measured(words: list[str], codes: tuple[int, ...] = (0, 1)) -> str:
    """Return the standard output of a command of vmctl, whose code may be 1: a target is missed. Exits for others."""
    print(f"$ {shlex.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run([VMCTL, *words[1:]], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in codes:
        sys.exit(f"{shlex.join(words)} ended with code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
