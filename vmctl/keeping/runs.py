"""The runs of an instance: what its supervisor has to keep, and whether it is between two runs.

The process that is there as long as the workload, the supervisor or the recorder of a guest, has a `Keeper`
(keeper.py) if there is something to keep. It starts check.py for each health check, and becomes restart.py or
remove.py when the workload has ended. Between two runs it is waiting.py. It keeps its pid through all of that, so the
journal and the state of the instance name it all the time, and a full disk changes nothing.
"""

from __future__ import annotations

import os
import sys

from vmctl.instances.instance import Instance
from vmctl.keeping.keeper import MARK, SEPARATOR, STOP_SIGNAL, VARIABLE
from vmctl.light import signal
from vmctl.linux import processes
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmctl.spec.workload import Workload

_VARIABLES = ("PATH", "HOME", "VMCTL_ROOT", "XDG_DATA_HOME", "LIBVIRT_DEFAULT_URI")  # what later commands need


class Keep(NamedTuple):
    """What a supervisor inherits."""

    held: int  # descriptor of the secrets, see held.py; -1 without
    environment: Mapping[str, str]  # empty if there is nothing to keep


def keep(inst: Instance) -> Keep:
    """Return what the supervisor of the next run inherits; the caller closes the descriptor. Raises SpecError."""
    fd = -1
    if inst.work.secrets or inst.work.env_file:
        from vmctl.keeping import held

        fd = held.keep(held.read(inst.work))
    if not (inst.state.health or inst.state.removes or restarts(inst.work)):
        return Keep(fd, {})
    return Keep(fd, {**environment(), VARIABLE: SEPARATOR.join(_settings(inst, fd))})


def restarts(work: Workload) -> bool:
    """Return whether a workload is started again when it ends."""
    return work.restart.policy != "no"


def _settings(inst: Instance, held: int) -> list[str]:
    """Return the words from which a supervisor makes its `Keeper`."""
    from vmctl.keeping import health

    return [
        health.path(inst),
        " ".join(f"{number:g}" for number in health.times(inst.state.health)),
        str(held),
        "restart" if restarts(inst.work) else "remove" if inst.state.removes else "",
        f"{inst.name} {inst.id}",
        *program(),
    ]


def program() -> list[str]:
    """Return the beginning of a command line that runs a module of ours."""
    return [sys.executable, "-P", "-m"]


def environment() -> dict[str, str]:
    """Return the variables for a supervisor that starts commands of ours: those by which they find the instance."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def hold_back() -> None:
    """Block the request to stop, which would end this process, until its `Keeper` can handle it; exec keeps that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [STOP_SIGNAL])


def forbid(inst: Instance) -> None:
    """Let the instance not be started again by itself: its user wants it to end. The caller has the lock."""
    inst.state.stopped = True
    processes.send(inst.state.supervisor_pid, inst.state.supervisor_start, STOP_SIGNAL)


def between_runs(inst: Instance) -> bool:
    """Return whether the workload has ended and a process waits to start it again, or does it."""
    state = inst.state
    if not restarts(inst.work) or not processes.alive(state.supervisor_pid, state.supervisor_start):
        return False
    return is_over(inst) and processes.alive(state.supervisor_pid, state.supervisor_start)


def is_over(inst: Instance) -> bool:
    """Return whether the supervisor of an instance has recorded the end, and is what comes after it, or is gone."""
    state = inst.state
    words = processes.settled_command(state.supervisor_pid or 0, state.supervisor_start)
    return words[-1] == MARK if words else not processes.alive(state.supervisor_pid, state.supervisor_start)
