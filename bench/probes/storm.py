"""Instances of the user's workload, all started at one moment: how long until the first, half, and all are ready."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median

from bench.probes import Request, Seen, crowd, tool
from bench.questions import Question, value
from vmctl.backend import Backend
from vmctl.errors import UnavailableError, VmctlError
from vmctl.spec.workload import Seconds, Workload

ROUNDS = 3

_MEANING = (
    "From the signal to all processes, one per instance, until so many instances are ready. The processes have "
    "imported everything before the signal; checks, preparation (mounts, disk, network) and the start come after it."
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
    """Return the time limit of one sample in seconds: all may share one processor, and guests may be emulated."""
    return crowd.SPARE_S + instances * crowd.start_limit_s(work)


def observe(request: Request) -> Seen:
    """Start `request.instances` at once. Raises VmctlError unless all get ready: fewer are not comparable.

    It is also raised if one ran elsewhere than its mode promises.
    """
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
        texts = tool.ran_all(names)
    if len(ready_s) < len(names):
        return Seen({}, {}, {}, {**texts, "unseen": "unknown: the workload has no `ready` and wrote nothing"})
    ready_s.sort()
    values = {"first_s": ready_s[0], "median_s": median(ready_s), "last_s": ready_s[-1]}
    return Seen({}, values, {"ready_s": ready_s}, texts)


def _note(starter: crowd.Starter, began_ns: int, ready_s: list[float], failures: list[str]) -> None:
    try:
        ready_ns = starter.started().ready_ns()
    except VmctlError as error:
        failures.append(str(error))
        return
    if ready_ns is not None:
        ready_s.append((ready_ns - began_ns) / 1e9)


def _patient(work: Workload, count: int) -> Workload:
    """Return the workload with `count` times its time to get ready, since so many get ready at once."""
    if work.ready is None:
        return work
    return work._replace(ready=work.ready._replace(timeout_s=Seconds(work.ready.timeout_s * count)))


def _refuse(work: Workload, count: int, backend: Backend) -> None:
    """Raise UnavailableError if `count` instances cannot run at once."""
    once = crowd.only_once(work, backend) if count > 1 else ""
    why = once or crowd.host_memory().left_by((work.resources.memory_bytes or 0) * count)
    if why:
        raise UnavailableError(f"{count} instances cannot run at once: {why}")
