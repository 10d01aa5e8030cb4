"""What measuring itself costs: how much later than the true moment the observed one is, and the CPU that waiting takes.

    python -m bench.overhead

This is a separate process, like that of a sample. It measures only modes that share the host's kernel: there the
workload reads the same clock as the host, and writes the time at which it wrote.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from vmctl import backends, engine, readiness
from vmctl.backend import Start
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.spec.workload import HttpProbe, Ready, Workload

QUIET_MS = 100  # how long the workload of a round is silent
WAIT_S = 2.0  # how long a workload takes to get ready while the CPU is measured
OUTPUT_S = 60.0  # at most until a workload has written
STAMP = "stamp"


def main() -> None:
    """Read a request from stdin, write the answer to stdout."""
    request = json.load(sys.stdin)
    try:
        answer = _answer(**request)
    except VmctlError as error:
        answer = {"error": str(error)}
    os.write(1, json.dumps(answer).encode())


def _answer(name: str, mode: str, image: str, program: str, rounds: int) -> dict[str, Any]:
    command, port = (program, STAMP, str(QUIET_MS)), _free_port()
    writing = Workload(name=name, image=image, command=command, ready=Ready(log=f"^{STAMP}"))
    listening = writing._replace(command=(*command, str(port)), ready=Ready(tcp=port))
    rows = [(watched(writing, mode), watched(listening, mode), unwatched_s(listening, mode)) for _ in range(rounds)]
    late = {
        "output": [line.output_late_s for line, _, _ in rows],
        "line": [line.late_s for line, _, _ in rows],
        "port": [port.late_s for _, port, _ in rows],
    }
    intervals = [(port.interval_s, other) for _, port, other in rows]
    quiet = f"sleep {WAIT_S:g};"
    log = writing._replace(command=("sh", "-c", f"{quiet} echo {STAMP}; exec sleep 100"))
    serve = f"{quiet} exec httpd -f -p {port} -h /etc"
    http = log._replace(command=("sh", "-c", serve), ready=Ready(http=HttpProbe(port, "/passwd")))
    return {
        "late_s": late,
        "intervals_s": intervals,
        "cpu_share": {"log": cpu_share(log, mode), "http": cpu_share(http, mode)},
    }


class Watched(NamedTuple):
    """A start that was observed until the workload wrote its line."""

    interval_s: float  # from T0 to T6
    late_s: float  # from the time in the workload's line to T6
    output_late_s: float  # from the same time to T5


def watched(work: Workload, mode: str) -> Watched:
    """Return the observed times of a start compared with the workload's own. Raises VmctlError."""
    with _started(work, mode) as start:
        inst = start.inst
        readiness.wait_until_ready(start.watch)
        readiness.wait_until(lambda: _line(inst).endswith("\n"), start.watch, OUTPUT_S)
        start.watch.observe()
        true_ns, marks_ns = _stamp_ns(inst), inst.timeline.marks_ns
    first_ns, ready_ns = marks_ns["T5"], marks_ns["T6"]
    return Watched((ready_ns - marks_ns["T0"]) / 1e9, (ready_ns - true_ns) / 1e9, (first_ns - true_ns) / 1e9)


def unwatched_s(work: Workload, mode: str) -> float:
    """Return the seconds from T0 to the time in the workload's line; nothing observes the workload before that.

    Raises VmctlError if it writes nothing.
    """
    with _started(work, mode) as start:
        inst = start.inst
        deadline = time.monotonic() + OUTPUT_S
        while not _line(inst).endswith("\n"):
            if time.monotonic() > deadline:
                raise VmctlError(f"{inst.name} produced no output within {OUTPUT_S:g} s")
            time.sleep(QUIET_MS / 1000 * 2)  # longer than it is silent: it writes while this process sleeps
        return (_stamp_ns(inst) - inst.timeline.marks_ns["T0"]) / 1e9


def cpu_share(work: Workload, mode: str) -> float:
    """Return the share of one processor that waiting for readiness takes, including children (getrusage(2))."""
    with _started(work, mode) as start:
        begun_s, used_s = time.monotonic(), _used_s()
        readiness.wait_until_ready(start.watch)
        return (_used_s() - used_s) / (time.monotonic() - begun_s)


def _started(work: Workload, mode: str) -> AbstractContextManager[Start]:
    """Lend an instance that has just been started, not yet ready."""
    name = f"{work.name or 'bench-harness'}-{os.urandom(3).hex()}"
    return engine.running(work._replace(name=name), backends.load(mode), wait=False)


def _stamp_ns(inst: Instance) -> int:
    """Return the time in the workload's line (CLOCK_MONOTONIC)."""
    return int(_line(inst).split()[1])


def _line(inst: Instance) -> str:
    """Return the workload's first line, "" before its first output: the log does not exist until then."""
    try:
        with open(inst.stdout_log, encoding="ascii") as file:
            return file.readline()
    except FileNotFoundError:
        return ""


def _free_port() -> int:
    """Return a port that is free now, for the mode that shares the host's network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _used_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


if __name__ == "__main__":
    main()
