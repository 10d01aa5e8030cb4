"""Several instances of one workload on one host: each is started by a separate process, and all are removed at the end.

    python -m bench.probes.crowd

A container's supervisor is a child of the process that starts it, and shares memory with it while both live. So one
process that started all of them would make each look cheaper than with `vmctl up`. The process reads a request from its
standard input, answers "waiting", and starts the instance at the next line. So several can start at the same moment.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from bench.probes import Request
from vmctl import backends, engine, readiness
from vmctl.backend import Backend, Watch
from vmctl.errors import NotFoundError, VmctlError
from vmctl.instances import instance
from vmctl.linux import memory
from vmctl.programs import module
from vmctl.spec.units import format_size
from vmctl.spec.workload import Workload

SPARE_S = 120.0  # in addition to the starts: removals, a slow host
START_S = 60.0  # in addition to the workload's own time to get ready: preparation, a busy host
FIRST_BYTE_S = 5.0  # a workload without `ready` counts as started after so long without output
RESERVE_SHARE = 0.1  # the share of the host's memory that always stays free
_REFRESH = "/proc/sys/vm/stat_refresh"  # Documentation/admin-guide/sysctl/vm.rst


class Started(NamedTuple):
    """An instance that has been started, with its marks on CLOCK_MONOTONIC; see vmctl/instances/timeline.py."""

    name: str
    marks_ns: dict[str, int]

    def ready_ns(self) -> int | None:
        """Return when it was ready: at a service's first answer, else at its first output; None if neither was seen."""
        return self.marks_ns.get("T6") or self.marks_ns.get("T5")

    def start_s(self) -> float | None:
        """Return the seconds from the request to start it until it was ready; None if that was not seen."""
        ready_ns = self.ready_ns()
        return None if ready_ns is None else (ready_ns - self.marks_ns["T0"]) / 1e9


class Starter:
    """A process that starts one instance at a signal. Methods raise VmctlError if the process or the start fails."""

    def __init__(self, work: Workload, mode: str, options: Mapping[str, str]) -> None:
        self.name = work.name
        ours, theirs = socket.socketpair()
        with theirs:
            streams = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), number) for number in (0, 1)]
            argv = module("bench.probes.crowd")
            self.pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=streams)
        self._socket = ours
        self._lines = ours.makefile("r", encoding="utf-8")
        self._send({"workload": work.to_json(), "mode": mode, "options": dict(options)})

    def wait(self) -> None:
        """Wait until the process has everything that it needs to start the instance."""
        self._receive()

    def begin(self) -> None:
        """Give the signal to start."""
        self._send({})

    def started(self) -> Started:
        """Return the instance once it is ready; it continues to run when the process that started it has ended."""
        answer = self._receive()
        if "error" in answer:
            raise VmctlError(answer["error"])
        return Started(self.name, answer["marks_ns"])

    def close(self) -> None:
        """Kill the process."""
        self._lines.close()
        self._socket.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # then `_receive` raises the error
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise VmctlError(f"the process that starts {self.name} ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer


def start(work: Workload, mode: str, options: Mapping[str, str]) -> Started:
    """Start one instance by a separate process. Raises VmctlError."""
    starter = Starter(work, mode, options)
    try:
        starter.wait()
        starter.begin()
        return starter.started()
    finally:
        starter.close()


@contextmanager
def removed(names: Sequence[str]) -> Iterator[None]:
    """Remove the instances of these names at the end, also after an error. Raises if one cannot be removed."""
    try:
        yield
    finally:
        failures = list(filter(None, map(_remove, reversed(names))))
        if failures:
            raise failures[0]


def _remove(name: str) -> VmctlError | None:
    try:
        engine.rm(name, force=True)
    except NotFoundError:
        instance.remove_unfinished()  # a starter was killed before the directory got its name
    except VmctlError as error:
        return error
    return None


def names(request: Request) -> list[str]:
    """Return the names of one sample's instances; only one for a warm-up."""
    count = 1 if request.look else request.instances
    return [f"{request.name}-{number}" for number in range(1, count + 1)]


def without_ports(work: Workload) -> Workload:
    """Return the workload without published ports: a port of the host can be published only once."""
    return work._replace(ports=())


def only_once(work: Workload, backend: Backend) -> str:
    """Return why only one instance can run at a time, "" if several can.

    On a shared network the answer of the first one would make the second one count as ready.
    """
    if work.ready is None or (backend.features.own_network and work.network != "host"):
        return ""
    port = work.ready.http.port if work.ready.http else work.ready.tcp
    return f"instances share the host's network in mode {backend.mode}, and it has port {port} only once" * bool(port)


def start_limit_s(work: Workload) -> float:
    """Return the time limit for one start in seconds."""
    return START_S + (work.ready.timeout_s if work.ready else FIRST_BYTE_S)


def main() -> None:
    """Start one instance, as `vmctl up` does, and write its marks once it is ready."""
    from vmctl.linux import syscalls

    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # else a start could continue during the removal
    lines, send = sys.stdin, _sender()
    request = json.loads(lines.readline() or "null")
    if request is None:
        return
    work = Workload.from_json(request["workload"])
    mode, options = request["mode"], request["options"]
    watch = backends.load(mode, options).watch  # loaded before the start is timed
    send({"waiting": work.name})
    if not lines.readline():
        return
    try:
        send({"marks_ns": _watched(watch(engine.up(work, mode, options=options)))})
    except VmctlError as error:
        send({"error": " ".join(filter(None, [str(error), error.detail]))})


def _sender() -> Callable[[dict[str, Any]], None]:
    """Return a function that writes a message to the socket; processes started later do not inherit the socket."""
    fd = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    return lambda message: _write(fd, message)


def _write(fd: int, message: dict[str, Any]) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")


def _watched(watch: Watch) -> dict[str, int]:
    """Return the marks; wait for the first output of a workload without `ready`, for at most FIRST_BYTE_S."""
    if not watch.inst.work.ready:
        readiness.wait_for_output(watch, FIRST_BYTE_S)
    return watch.inst.timeline.marks_ns


def running(name: str, backend: Backend) -> bool:
    """Return whether an instance still runs."""
    return engine.status(instance.load(name), backend) == "running"


class HostMemory(NamedTuple):
    """The memory of the host, in bytes (proc(5), meminfo)."""

    available: int
    total: int

    def left_by(self, taken: float) -> str:
        """Return why `taken` bytes more would be too many, "" if they would not be."""
        reserve = round(RESERVE_SHARE * self.total)
        if self.available - taken >= reserve:
            return ""
        sizes = [format_size(round(size)) for size in (self.available, reserve, taken)]
        return "the host has {} of memory available, of which {} have to stay free; this may take {}".format(*sizes)


def host_memory() -> HostMemory:
    """Return the host's memory now."""
    if os.access(_REFRESH, os.W_OK):  # else the processors' own counters are added up only once a second
        with suppress(OSError), open(_REFRESH, "w", encoding="ascii") as file:
            file.write("1")
    with open("/proc/meminfo", encoding="ascii") as file:
        found = memory.meminfo(file.read())
    return HostMemory(found["MemAvailable"], found["MemTotal"])


if __name__ == "__main__":
    main()
