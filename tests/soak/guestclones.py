"""What clones of guests and warm starts take, compared with a guest that boots, in the same rounds.

Times are those of the engine, from the request to the first correct answer over HTTP; of `vmctl run` that of the whole
command. Memory is what is charged to the control group of a clone that does nothing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from support.commands import VMCTL

from vmctl.instances import instance
from vmctl.linux.cgroups import Cgroup

MOST_RATIO, MOST_BYTES = 0.15, 50 << 20
IDLE_S = 5.0  # after the start, until the memory is read
WORK = """
image: tiny
command: [httpd, -f, -p, "8000", -h, /srv]
files: [{path: /srv/index.html, content: hello}]
ready: {http: "8000/"}
resources: {memory: 256M}
"""


def main():
    """Measure, print, and return 1 if a clone takes more time or memory than it should."""
    parser = argparse.ArgumentParser(prog="python -m soak.guestclones", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--idle", type=int, default=10, metavar="N", help="clones that run at once for the memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "web.yaml")
        with open(path, "w") as file:
            file.write(WORK)
        try:
            return _measure(path, options.rounds, options.idle)
        finally:
            subprocess.run(
                [VMCTL, "rm", "-f", *(name for name in instance.names() if name.startswith("clones-"))], check=False
            )
            subprocess.run([VMCTL, "snapshot", "rm", "clones-gold"], check=False)


def _measure(path, rounds, idle):
    _up(path, "clones-base", "--warm", "auto")
    _vmctl("snapshot", "clones-base", "clones-gold")
    _run()  # makes its template, unless it exists
    found = {"boot": [], "template": [], "clone": [], "run": []}
    for _ in range(rounds):
        found["boot"].append(_up(path, "clones-one"))
        found["template"].append(_up(path, "clones-two", "--warm", "auto"))
        _vmctl("clone", "clones-gold", "--name", "clones-three")
        found["clone"].append(_answer_s("clones-three"))
        for name in ("clones-one", "clones-two", "clones-three"):
            _vmctl("rm", "-f", name)
        found["run"].append(_run())
    for name, seconds in found.items():
        ratio = statistics.median(seconds) / statistics.median(found["boot"])
        print(f"{name}: {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f}), {ratio:.2f}")
    memory = _memory(idle)
    print(f"memory of {idle} idle clones, MiB: {', '.join(f'{size / (1 << 20):.1f}' for size in memory)}")
    ratio = statistics.median(found["clone"]) / statistics.median(found["boot"])
    return int(ratio > MOST_RATIO or max(memory) > MOST_BYTES)


def _memory(count):
    names = [f"clones-idle{number}" for number in range(count)]
    for name in names:
        _vmctl("clone", "clones-gold", "--name", name)
    time.sleep(IDLE_S)
    return [Cgroup(instance.load(name).cgroup).memory_bytes() or 0 for name in names]


def _up(path, name, *more):
    _vmctl("up", "--mode", "vm", "--name", name, *more, path)
    return _answer_s(name)


def _answer_s(name):
    return instance.load(name).timeline.between_s("T0", "T6")


def _run():
    begin_s = time.monotonic()
    _vmctl("run", "--mode", "vm", "--warm", "auto", "tiny", "--", "true")
    return time.monotonic() - begin_s


def _vmctl(*words):
    subprocess.run([VMCTL, *words], check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
