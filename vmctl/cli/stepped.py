"""`vmctl up --step`: a start that waits for Enter after each of its steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl import backends, phases, trace
from vmctl.backend import Backend, HasPause
from vmctl.cli import output
from vmctl.engine import Progress
from vmctl.errors import SpecError, UnavailableError
from vmctl.instances.instance import Instance
from vmctl.linux import usernamespace
from vmctl.linux.commands import join
from vmctl.spec.workload import Workload
from vmctl.stepping import kinds, stage

_LAST = "exec"  # the phase after which nothing waits: the workload runs


def check(*, stack: bool = False) -> None:
    """Raise SpecError for a stack, UnavailableError without a terminal."""
    if stack:
        raise SpecError("--step is for one workload, and this is a stack", hint="make a workload file of one service")
    if not (os.isatty(0) and os.isatty(2)):
        text = "--step waits for Enter, and standard input and standard error are not a terminal"
        raise UnavailableError(
            text, hint="--explain shows the steps without a start; --trace FILE records those of one"
        )


@contextmanager
def shown(work: Workload, backend: Backend, options: dict[str, str], *, each: bool) -> Iterator[Progress]:
    """Let the steps of the start in the `with` block wait, and yield its progress. Raises UnavailableError."""
    if "connect" in options:
        text = f"--step stops a guest through QEMU's monitor, which the libvirt daemon {options['connect']} has"
        raise UnavailableError(text, hint="--explain shows the steps; without --connect, vmctl starts QEMU")
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
        self._backend, self._shown = backends.ability(backend, HasPause), 0

    def __call__(self, inst: Instance, phase: str) -> None:
        """Wait for each phase that has ended since the last call, while the guest is stopped."""
        if trace.gate is None or inst.state.status != "running":
            return
        begun_ns = inst.timeline.marks_ns["qemu"]  # what was before had its own steps
        found = [lap.phase.name for lap in phases.laps(inst.timeline.marks_ns) if lap.begin_ns >= begun_ns]
        new, self._shown = found[self._shown :], len(found)
        if not new:
            return
        self._backend.pause(inst)
        trace.gate(f"{kinds.PHASE}{new[-1]}", _look(inst))  # the kernel's report is that of the firmware, too
        if _LAST in new:
            trace.gate = None
        self._backend.resume(inst)


def _look(inst: Instance) -> str:
    """Return a command that shows what the guest has reported so far."""
    return join(["tail", "-n", "+1", inst.path("marks"), inst.console_log])
