"""Instances of the user's own workload, all begun at one moment: how long until the first, the median, the last."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median

from bench.probes import Request, Seen, crowd
from bench.questions import Question, value
from vmctl.backend import Backend
from vmctl.errors import UnavailableError, VmctlError
from vmctl.workload import Seconds, Workload

ROUNDS = 3

_MEANING = (
    "From the common signal to as many processes as there are instances until so many are ready. Each has imported "
    "what it needs before; checks, preparation (mounts, disk, network) and the start come after."
)

QUESTIONS = (
    Question("density.storm_first_s", "all at once: the first is ready", "s", value("first_s"), meaning=_MEANING),
    Question("density.storm_median_s", "  half of them are ready", "s", value("median_s"), meaning=_MEANING),
    Question("density.storm_last_s", "  all of them are ready", "s", value("last_s"), headline=True, meaning=_MEANING),
)


def prepare(work: Workload) -> Workload:
    """Return the workload without its published ports."""
    return crowd.without_ports(work)


def limit_s(work: Workload, instances: int) -> float:
    """Return after how many seconds a sample is given up: all may share one processor, and a guest be emulated."""
    return crowd.SPARE_S + instances * crowd.start_limit_s(work)


def observe(request: Request) -> Seen:
    """Start `request.instances` at once. Raises VmctlError unless all get ready: fewer would be another question."""
    names = crowd.names(request)
    _refuse(request.work, len(names), request.backend())
    failures: list[str] = []
    ready_s: list[float] = []
    with crowd.removed(names), ExitStack() as stack:
        starters = []
        for name in names:
            work = _patient(request.work, len(names))._replace(name=name)
            starters.append(crowd.Starter(work, request.mode, request.options))
            stack.callback(starters[-1].close)
        for starter in starters:
            starter.wait()
        began_ns = time.monotonic_ns()
        for starter in starters:
            starter.begin()
        for starter in starters:
            _note(starter, began_ns, ready_s, failures)
    if failures:
        raise VmctlError(f"{len(names) - len(failures)} of {len(names)} got ready: {failures[0]}")
    if len(ready_s) < len(names):
        return Seen({}, {}, {}, {"unseen": "the workload has no `ready` and wrote nothing: nobody knows when it is up"})
    ready_s.sort()
    values = {"first_s": ready_s[0], "median_s": median(ready_s), "last_s": ready_s[-1]}
    return Seen({}, values, {"ready_s": ready_s}, {})


def _note(starter: crowd.Starter, began_ns: int, ready_s: list[float], failures: list[str]) -> None:
    try:
        ready_ns = starter.started().ready_ns()
    except VmctlError as error:
        failures.append(str(error))
        return
    if ready_ns is not None:
        ready_s.append((ready_ns - began_ns) / 1e9)


def _patient(work: Workload, count: int) -> Workload:
    """Return the workload with as much more time to get ready as others get ready beside it."""
    if work.ready is None:
        return work
    return work._replace(ready=work.ready._replace(timeout_s=Seconds(work.ready.timeout_s * count)))


def _refuse(work: Workload, count: int, backend: Backend) -> None:
    """Raise UnavailableError where so many cannot be there at once."""
    once = crowd.only_once(work, backend) if count > 1 else ""
    why = once or crowd.host_memory().left_by((work.resources.memory_bytes or 0) * count)
    if why:
        raise UnavailableError(f"{count} instances cannot run at once: {why}")
