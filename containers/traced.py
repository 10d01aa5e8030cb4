"""What the start of a container writes to a trace, if one is asked for."""

from __future__ import annotations

from containers import identity
from vmctl import trace
from vmctl.linux import commands
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from containers.launch import Launch
    from images.store.image import Process


def clone(launch: Launch) -> None:
    """Trace the clone of a first process."""
    if launch.namespaces:
        trace.step(commands.unshare(launch.namespaces), "clone3, and in the new process:")
    else:
        trace.comment("clone3, without new namespaces, and in the new process:")


def execute(process: Process, user: identity.User, capabilities: int | None, seccomp: bytes) -> None:
    """Trace the execution of a workload."""
    words = ["setpriv", *identity.options(user, capabilities), "env", "-i"]
    words += [f"{name}={'...' if name in process.hidden else value}" for name, value in process.env.items()]
    words += process.argv
    note = f"the workload, below a seccomp filter of {len(seccomp) // 8} instructions" if seccomp else "the workload"
    trace.step(f"cd {commands.quote(process.workdir)} && exec {commands.join(words)}", note)
