"""Wait for what another command has started: until it has begun, is ready, or is healthy."""

from __future__ import annotations

import time

from vmctl import backends, engine
from vmctl.backend import Backend
from vmctl.errors import DeadlineError, StateError
from vmctl.instances.instance import Instance
from vmctl.spec.units import format_seconds

_PERIOD_S = 0.01


class Limit:
    """A time limit that begins now; None: no limit."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._end_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s

    def check(self, inst: Instance, what: str) -> None:
        """Raise DeadlineError if it has passed; `what` ends the sentence."""
        if time.monotonic() > self._end_s:
            raise DeadlineError(f"{inst.name} {what} after {format_seconds(self.timeout_s or 0)}")

    def left_s(self) -> float | None:
        """Return the seconds that are left, None without a limit."""
        return None if self.timeout_s is None else max(0.0, self._end_s - time.monotonic())


def begun(inst: Instance, limit: Limit) -> None:
    """Wait until an instance that `create` has made was started. Raises DeadlineError, NotFoundError."""
    while inst.state.waiting:
        limit.check(inst, "was not started")
        time.sleep(_PERIOD_S)
        inst.recall()


def _status(inst: Instance, backend: Backend, awaited: str) -> str:
    """Return the status by now. Raises StateError if the instance has ended, NotFoundError."""
    inst.recall()
    status = engine.status(inst, backend)
    if status in ("exited", "failed"):
        raise StateError(f"{inst.name} has ended and is not {awaited}", hint=f"`vmctl logs {inst.name}` shows why")
    return status


def healthy(inst: Instance, limit: Limit) -> None:
    """Wait until the health check of an instance succeeds; one that fails may succeed later.

    Raises StateError if it has no check or has ended, DeadlineError, NotFoundError.
    """
    from vmctl.keeping import health

    backend = backends.load(inst.state.mode, inst.state.options)
    while True:
        status = _status(inst, backend, "healthy")
        if status == "running" and not inst.state.health and not inst.busy():
            raise StateError(f"{inst.name} has no health check", hint="the key `health`, or `--for ready`")
        found = health.seen(inst) if status == "running" else None
        if found is not None and found.status == "healthy":
            return
        limit.check(inst, f"is {found.status}" if found else "is not healthy")
        time.sleep(_PERIOD_S)


def ready(inst: Instance, limit: Limit) -> None:
    """Wait until a workload is ready, as `up` does. Raises StateError if it has ended, DeadlineError, NotFoundError.

    The command that starts it records when it is ready; if that command does not wait, this one asks the workload.
    """
    backend = backends.load(inst.state.mode, inst.state.options)
    while True:
        status = _status(inst, backend, "ready")
        if status == "running" and "T6" in inst.timeline.marks_ns:
            return
        if status == "running" and not (inst.work.ready and inst.busy()):
            break
        limit.check(inst, "is not ready")
        time.sleep(_PERIOD_S)
    from vmctl import readiness

    readiness.wait_until_ready(
        backend.watch(inst), lambda seen, phase: limit.check(seen, f"is not ready (the last phase was {phase})")
    )
