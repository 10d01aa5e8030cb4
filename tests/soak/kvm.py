"""`python -m soak.kvm --out FOLDER`: the tests and the bench of guests under KVM, as root, for a host that has it.

First tries whether /dev/kvm runs a distribution's kernel, again even if an earlier result is known; exit code 2 if it
does not. Then runs the tests of guests, the bench of a service as container and guest, and that of clones. Prints what
to send back; exit code 1 if a test or a measurement failed.

It was never run on a host on which KVM works: see docs/boot.md.
"""

import argparse
import os
import subprocess
import sys
from glob import glob

from support.commands import VMCTL

from vmm import accelerator

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESTS = ("test_vmm_*.py", "test_guest_*.py", "test_exec_guest.py", "test_attack_guest.py", "test_attack_saved.py")
SERVICE = os.path.join(HERE, "..", "configs", "workloads", "web.yaml")
BACK = """
Send back the folder {folder}:
  doctor.json              processor, kernel and QEMU of this host, and the result of the try of KVM
  tests.txt                which tests failed, and why
  bench.txt, clones.txt    the figures; the folders next to them have the samples
It has the name of this host and of its processor in it, and the output of guests. Steps that failed: {failed}.
With it, the list "Never run under KVM" in docs/boot.md becomes shorter."""


def main():
    parser = argparse.ArgumentParser(prog="kvm")
    parser.add_argument("--out", required=True)
    out = os.path.abspath(parser.parse_args().out)
    verdict = tried()
    if verdict.name != "kvm":
        print(f"KVM does not run guests on this host: {verdict.why}. Nothing was run.", file=sys.stderr)
        print("hint: `vmctl doctor` shows what a guest needs; a virtual machine needs nested KVM", file=sys.stderr)
        return 2
    print(f"KVM works: {verdict.why}", flush=True)
    os.makedirs(out, exist_ok=True)
    bench = [VMCTL, "bench", SERVICE, "--modes", "container,vm", "--accel", "kvm", "--runs", "30"]
    steps = {
        "doctor.json": [VMCTL, "doctor", "--format", "json"],
        "tests.txt": [sys.executable, "-m", "pytest", "-v", *guest_tests()],
        "bench.txt": [*bench, "--out", f"{out}/bench"],
        "clones.txt": [VMCTL, "bench", "clones", "--runs", "5", "--out", f"{out}/clones"],
    }
    failed = [name for name, words in steps.items() if run(words, os.path.join(out, name))]
    print(BACK.format(folder=out, failed=", ".join(failed) or "none"))
    return int(bool(set(failed) - {"doctor.json"}))  # a host may lack what guests do not need


def tried():
    """Return the result of a try that is made now, if /dev/kvm can be opened."""
    known = accelerator.known()
    if known is not None and not os.access(accelerator.DEVICE, os.R_OK | os.W_OK):
        return known
    return accelerator.renewed()


def guest_tests():
    return sorted(path for pattern in TESTS for path in glob(os.path.join(HERE, pattern)))


def run(words, path):
    """Run a program with its output on the terminal and in a file, and return its exit code."""
    print(f"{os.path.basename(path)}: {' '.join(words[:4])} ...", flush=True)
    with open(path, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            words, cwd=os.path.join(HERE, ".."), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout:
            sys.stdout.write(line)
            file.write(line)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
