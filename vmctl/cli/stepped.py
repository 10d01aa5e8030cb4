"""`vmctl up --step` and `vmctl run --step`: a start that waits for Enter after each of its steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl import backends, ends, phases, trace
from vmctl.backend import Backend, HasPause
from vmctl.cli import output
from vmctl.engine import ATTENDED, Progress
from vmctl.errors import SpecError, UnavailableError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import usernamespace
from vmctl.linux.commands import join
from vmctl.spec.workload import Workload
from vmctl.stepping import kinds, stage

_LAST = "exec"  # the phase after which nothing waits: the workload runs
_END_S = 10.0  # from the last answer of a QEMU until its end is seen


def check(*, stack: bool = False) -> None:
    """Raise SpecError for a stack, UnavailableError without a terminal."""
    if stack:
        raise SpecError("--step is for one workload, and this is a stack", hint="make a workload file of one service")
    if not (os.isatty(0) and os.isatty(2)):
        text = "--step waits for Enter, and standard input and standard error are not a terminal"
        hint = "`vmctl up SPEC --explain` shows the steps without a start; --trace FILE records those of one"
        raise UnavailableError(text, hint=hint)


@contextmanager
def shown(work: Workload, backend: Backend, options: dict[str, str], *, each: bool) -> Iterator[Progress]:
    """Let the steps of the start in the `with` block wait, and yield its progress. Raises UnavailableError."""
    if "connect" in options:
        text = f"--step stops a guest through QEMU's monitor, which the libvirt daemon {options['connect']} has"
        raise UnavailableError(text, hint="without --connect, vmctl starts QEMU")
    output.note(
        f"{work.name}: each step of its start in mode {backend.mode} waits for Enter. A second terminal can look."
    )
    with stage.opened(list(backend.explain(work)), _write, root=usernamespace.is_host_root(), each=each):
        yield _Guest(backend) if backend.features.own_kernel else _process


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _process(inst: Instance, phase: str) -> None:
    """Let nothing wait once the workload runs: a probe of its readiness has a time limit."""
    if trace.gate is not None and inst.state.status == "running":
        trace.gate = None
        output.note(f"{inst.name}: the workload runs as process {inst.state.pid}")


class _Guest:
    """The progress of the start of a guest, which is stopped when one of its phases has ended."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self._able, self._shown = backend, backends.ability(backend, HasPause), 0

    def __call__(self, inst: Instance, phase: str) -> None:
        """Wait for each phase that has ended since the last call, while the guest is stopped."""
        if trace.gate is None or inst.state.status != "running":
            return
        if phase == ATTENDED:  # a short one has ended by now
            trace.gate = None
            output.note(f"{inst.name}: the workload runs in the guest")
            return
        begun_ns = inst.timeline.marks_ns["qemu"]  # what was before had its own steps
        found = [lap.phase.name for lap in phases.laps(inst.timeline.marks_ns) if lap.begin_ns >= begun_ns]
        new, self._shown = found[self._shown :], len(found)
        if not new:
            return
        try:
            self._able.pause(inst)
        except VmctlError:
            if ends.ends(inst, self._backend, _END_S):  # a short workload; who waits for it sees its end
                return
            raise
        trace.gate(f"{kinds.PHASE}{new[-1]}", _look(inst))  # the kernel's report is that of the firmware, too
        if _LAST in new:
            trace.gate = None
        self._able.resume(inst)


def _look(inst: Instance) -> str:
    """Return a command that shows what the guest has reported so far."""
    return join(["tail", "-n", "+1", inst.path("marks"), inst.console_log])
