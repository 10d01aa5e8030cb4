"""Wait for the end of an attached container."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext

from vmctl.backend import Exit
from vmctl.instance import Instance
from vmctl.linux import processes
from vmctl.linux.stdio import signals_to


def attend(inst: Instance, master: int | None, *, foreground: bool) -> Exit:
    """Wait for the container, our child, and return how it ended; `master` belongs to its terminal.

    In the foreground signals are passed on to the container; a second Ctrl-C kills it, even if it ignores the first.
    """
    pid = inst.state.pid
    assert pid is not None
    interrupts = 0

    def pass_on(signum: int) -> None:
        nonlocal interrupts
        interrupts += signum == signal.SIGINT
        processes.send(pid, inst.state.pid_start, signal.SIGKILL if interrupts > 1 else signum)

    with signals_to(pass_on) if foreground else nullcontext():
        if master is not None:
            from vmctl.linux import terminal

            terminal.relay(master)
        status = os.waitpid(pid, 0)[1]
    return Exit(processes.exit_code(status), "signal" if os.WIFSIGNALED(status) else "workload")
