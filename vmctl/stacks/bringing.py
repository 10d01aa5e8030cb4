"""What `up` does for one instance, in a separate process: start it, and report each state that others wait for."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from vmctl import again, engine, phases
from vmctl.errors import VmctlError
from vmctl.instances import instance, published
from vmctl.instances.instance import Instance
from vmctl.logs.logfile import last_bytes
from vmctl.stacks.changes import Change
from vmctl.stacks.workers import Send

STARTED, READY, HEALTHY, COMPLETED = "started", "ready", "healthy", "completed"
PHASE = "phase"
_TAIL_BYTES, _TAIL_LINES = 4096, 10
_LOOK_S = 0.05


def bring(change: Change, options: Mapping[str, str], wanted: Collection[str], send: Send, *, wait: bool) -> None:
    """Carry out a change and report `started`, `ready` and those of the other states that are `wanted`.

    After a failure the instance stays as it is; the error has its last lines. Raises errors of vmctl.errors.
    """
    inst, ended = None, _Ended()
    try:
        inst = _started(change, options, send, ended, wait=wait or READY in wanted or HEALTHY in wanted)
        send(STARTED)
        send(READY, **_summary(inst, change), ended=ended(inst) if change.kind != "keep" else [])
        if HEALTHY in wanted:
            _wait_healthy(inst)
            send(HEALTHY)
        if COMPLETED in wanted:
            _wait_completed(inst)
            send(COMPLETED)
    except VmctlError as error:
        raise _with_last_lines(change, error) from error


class _Ended:
    """The phases of a start that have ended since the last call: name and seconds of each."""

    def __init__(self) -> None:
        self._timeline: object = None
        self._count = 0

    def __call__(self, inst: Instance) -> list[tuple[str, float]]:
        if inst.timeline is not self._timeline:
            self._timeline, self._count = inst.timeline, 0
        new = phases.laps(inst.timeline.marks_ns)[self._count :]
        self._count += len(new)
        return [(lap.phase.name, lap.took_s) for lap in new]


def _started(change: Change, options: Mapping[str, str], send: Send, ended: _Ended, *, wait: bool) -> Instance:
    """Return the instance, running. Raises errors of vmctl.errors."""

    def show(inst: Instance, phase: str) -> None:
        if phase == engine.STARTED:
            send(STARTED)
        else:
            send(PHASE, text=phase, ended=ended(inst))

    if change.kind == "keep":
        return instance.load(change.name)
    if change.kind == "start":
        found = again.start(change.name, wait=wait, progress=show)
        return found or instance.load(change.name)
    assert change.wanted is not None
    if change.kind == "replace":
        engine.down(change.name)
    work, mode = change.wanted.work, change.wanted.mode
    return engine.up(work, mode, options=options, wait=wait, progress=show, keep=True)


def _summary(inst: Instance, change: Change) -> dict[str, Any]:
    state, line = inst.state, inst.timeline
    return {
        "mode": state.mode,
        "accelerator": state.accelerator,
        "warm": state.warm,
        "address": state.address,
        "ports": [f"{port.shown_address()}:{port.host_port}" for port in published.of(inst)],
        "took_s": (line.between_s("T0", "T6") or line.between_s("T0", "T1")) if change.kind != "keep" else None,
        "warnings": [*state.weakened, *state.warnings] if change.kind != "keep" else [],
    }


def _wait_healthy(inst: Instance) -> None:
    """Wait until a health check has succeeded. Raises VmctlError if it does not, or if there is no check."""
    from vmctl.keeping import health

    inst.recall()
    if not inst.state.health:
        raise VmctlError(f"{inst.name} has no health check, and others wait for it", hint="`depends_on: {NAME: ready}`")
    while True:
        seen = health.seen(inst)
        if seen is not None and seen.status == "healthy":
            return
        if seen is not None and seen.status == "unhealthy":
            text = (
                f"{inst.name} is unhealthy: its check has failed {seen.failures} times, the last time with {seen.code}"
            )
            raise VmctlError(text, detail=seen.output)
        if engine.status(inst) in ("exited", "failed"):
            raise VmctlError(f"{inst.name} has ended before it was healthy")
        time.sleep(_LOOK_S)


def _wait_completed(inst: Instance) -> None:
    """Wait until the workload has ended. Raises VmctlError unless it ended with 0."""
    result = engine.wait(inst)
    assert result is not None  # without a time limit
    if result.code:
        why = "was killed because memory ran out" if result.source == "oom" else f"ended with {result.code}"
        raise VmctlError(f"{inst.name} {why}, and others wait until it ends with 0")


def _with_last_lines(change: Change, error: VmctlError) -> VmctlError:
    """Return the error with the service and the last lines of its output."""
    text = str(error) if change.name in str(error) else f"{change.name}: {error}"
    found = VmctlError(text, hint=error.hint, detail=error.detail or last_lines(change.name))
    found.exit_code = error.exit_code
    return found


def last_lines(name: str) -> str:
    """Return the last lines of the output of an instance, of both streams."""
    from vmctl.console import lines
    from vmctl.instances.folder import Home

    home = Home(name, "")
    parts = [last_bytes(path, _TAIL_BYTES).decode(errors="replace") for path in (home.stdout_log, home.stderr_log)]
    found = [f"{name} | {line}" for part in parts for line in lines(part)[-_TAIL_LINES:]]
    return "\n".join(found)
