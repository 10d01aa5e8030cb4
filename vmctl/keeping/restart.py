"""The restart of an instance that has ended: `python -m vmctl.keeping.restart ACTION NAME ID HELD FAILURES MARK`.

The supervisor of the run that has ended becomes this program with the action `ended`: it decides whether to start the
workload again. Then it sleeps (waiting.py), and is executed again with the action `start`. The new run has a new
supervisor, and this process ends. A start that fails is tried again, after a longer pause.

`HELD` is the descriptor with the secrets of the instance (held.py), or -1. `FAILURES` is how many short runs there were
in a row: a full disk can prevent that this is recorded. All of it ends at once by STOP_SIGNAL, or
when the instance is removed: the journal has had this process from the beginning.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from vmctl import again, backends, engine, private, removal
from vmctl.backend import Backend
from vmctl.errors import ConflictError, VmctlError
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.keeping import runs
from vmctl.keeping.keeper import MARK, STOP_SIGNAL
from vmctl.light import signal
from vmctl.linux import processes
from vmctl.linux.interpreter import become

FIRST_S, MOST_S = 0.1, 60.0  # the pause doubles with each short run, as that of docker does
LONG_RUN_S = {False: 10.0, True: 60.0}  # by `Features.own_kernel`: a guest boots first


def main(action: str, name: str, identity: str, held: int, failures: int) -> None:
    """Do the action; if the workload is to be started later, this process becomes the one that waits."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [STOP_SIGNAL])  # if it was sent meanwhile, this process ends here
    private.set_umask()
    try:
        inst = instance.load(name)
        backend = backends.load(inst.state.mode, inst.state.options)
        delay_s, failures = _act(action, inst, backend, identity, held, failures)
        action = "start"
    except ConflictError:  # another command has the lock for very long
        delay_s = FIRST_S
    if delay_s is not None:
        command = [*runs.program(), "vmctl.keeping.restart", action, name, identity, str(held), str(failures), MARK]
        words = [str(delay_s), str(held), *command]
        become("vmctl.keeping.waiting", [held] if held >= 0 else [], words, runs.environment())


def _act(
    action: str, inst: Instance, backend: Backend, identity: str, held: int, failures: int
) -> tuple[float | None, int]:
    """Do the action; return the seconds until the next start, None for no start, and the short runs so far."""
    with inst.locked():
        if inst.id != identity or inst.state.supervisor_pid != os.getpid():
            return None, 0  # a user has started it meanwhile
        inst.state.short_runs = max(inst.state.short_runs, failures)
        if action == "ended":
            return _after_run(inst, backend), inst.state.short_runs
        if held >= 0:
            from vmctl.keeping import held as values

            values.inherit(held)
        restarts, short_runs = inst.state.restarts, inst.state.short_runs
        try:
            again.clear(inst, backend)
            again.begin(inst, backend, restarts=restarts, short_runs=short_runs)
        except Exception as error:  # of any kind: it is tried again
            return _after_failure(inst, backend, error, restarts, short_runs), short_runs + 1
    return None, 0


def _after_run(inst: Instance, backend: Backend) -> float | None:
    started_ns = inst.timeline.marks_ns.get("T1", 0)
    if (time.monotonic_ns() - started_ns) * 1e-9 >= LONG_RUN_S[backend.features.own_kernel]:
        inst.state.short_runs = 0
    engine.record_end(inst, backend)
    delay_s = _next(inst, failed=inst.state.exit_code != 0)
    with suppress(OSError):  # a full disk
        inst.save()
    return delay_s


def _after_failure(inst: Instance, backend: Backend, error: Exception, restarts: int, short_runs: int) -> float | None:
    with suppress(VmctlError, OSError):
        removal.end_run(inst, backend)
    state = inst.state
    state.restarts, state.short_runs, state.reason = restarts, short_runs, f"it could not be started again: {error}"
    state.status, state.exit_code, state.exit_source = "failed", getattr(error, "exit_code", 125), "vmctl"
    delay_s = _next(inst, failed=True)
    with suppress(OSError):
        inst.save()
    return delay_s


def _next(inst: Instance, *, failed: bool) -> float | None:
    """Return the seconds until the next start, None if the policy wants none; the state is that between two runs."""
    restart, state = inst.work.restart, inst.state
    if state.stopped or (restart.policy == "on-failure" and not failed):
        return None
    if restart.max_retries is not None and state.restarts >= restart.max_retries:
        return None
    delay_s = min(FIRST_S * float(2 ** min(state.short_runs, 16)), MOST_S)
    state.restarts, state.short_runs = state.restarts + 1, state.short_runs + 1
    state.status, state.pid = "running", None
    state.supervisor_pid, state.supervisor_start = os.getpid(), processes.start_time(os.getpid())
    return delay_s


if __name__ == "__main__":
    with suppress(VmctlError, OSError):  # the instance was removed
        main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    os._exit(0)
