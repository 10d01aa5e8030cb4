"""List all instances of this host; an instance that cannot be read has status `unknown` and hides no other one."""

from __future__ import annotations

from vmctl import engine
from vmctl.errors import NotFoundError, VmctlError
from vmctl.instances import instance
from vmctl.instances.instance import Instance, LostError
from vmctl.linux import processes
from vmctl.named import NamedTuple

UNKNOWN, PAUSED = "unknown", "paused"
ENDED = ("exited", "failed")
RUNNING = ("running", "restarting", "paused")


class Seen(NamedTuple):
    """One instance as found; `instance` is None if it cannot be read.

    `reason` explains the statuses `unknown` and `failed`, and an end by the kernel or without a report.
    """

    name: str
    instance: Instance | None
    status: str  # created | running | restarting | paused | exited | failed | unknown
    reason: str = ""


def survey() -> list[Seen]:
    """Return every instance, sorted by name. An instance that cannot be read raises no error."""
    found = map(look, instance.names())
    return [seen for seen in found if seen is not None]


def look(name: str) -> Seen | None:
    """Return one instance, or None if it does not exist."""
    inst = None
    try:
        inst = instance.load(name)
        status = engine.status(inst)
        if status == "running" and inst.is_paused():
            status = PAUSED
        elif status in ENDED and inst.state.removes and _removed(inst):
            return None
        return Seen(name, inst, status, _reason(inst) if status in ENDED else "")
    except NotFoundError:
        return None
    except LostError as error:
        return Seen(name, None, "failed", str(error))
    except VmctlError as error:  # damaged, of a later format, or of a mode that is not installed
        return Seen(name, inst, UNKNOWN, str(error))
    except OSError as error:  # for example a file of /proc that cannot be read
        return Seen(name, inst, UNKNOWN, f"{name}: {error.strerror or error}")
    except Exception as error:  # of a backend that we do not know: it must not hide other instances
        return Seen(name, inst, UNKNOWN, f"{name}: internal error: {type(error).__name__}: {error}")


def _removed(inst: Instance) -> bool:
    """Remove an instance with --rm if the process that had to do it was killed; return whether it is gone.

    As long as that process lives, or a command works with the instance, nothing is done.
    """
    if processes.alive(inst.state.supervisor_pid, inst.state.supervisor_start) or inst.busy():
        return False
    from vmctl.keeping import remove

    with inst.locked(timeout_s=0.0):
        if engine.status(inst) not in ENDED:  # it was started meanwhile
            return False
        remove.ended(inst)
    return True


def _reason(inst: Instance) -> str:
    """Return in words why an instance has failed or its exit code is unknown; "" after an ordinary end."""
    state = inst.state
    if state.reason:
        return state.reason
    restarted = not inst.is_of_this_boot()
    if state.status == "created":
        return "the host was restarted during its start" if restarted else "the command that started it was killed"
    if state.exit_source == "oom":
        return "the kernel killed it because memory was used up: its limit, or the host's"
    if state.exit_source != engine.UNKNOWN or not state.boot_id:
        return ""
    return "the host was restarted while it ran" if restarted else "the process that reports its end was killed"
