"""All instances of this host, also those that cannot be read: none of them keeps the others from being listed."""

from __future__ import annotations

from vmctl import engine, instance
from vmctl.errors import NotFoundError, VmctlError
from vmctl.instance import Instance
from vmctl.named import NamedTuple

UNKNOWN = "unknown"


class Seen(NamedTuple):
    """One instance as it was found. With status `unknown`, `reason` is why; `instance` is None if it cannot be read."""

    name: str
    instance: Instance | None
    status: str  # created | running | exited | failed | unknown
    reason: str = ""


def survey() -> list[Seen]:
    """Return every instance by name. Never raises for a single one; one that is removed meanwhile is left out."""
    found = map(look, instance.names())
    return [seen for seen in found if seen is not None]


def look(name: str) -> Seen | None:
    """Return one instance, None if there is none of this name."""
    inst = None
    try:
        inst = instance.load(name)
        return Seen(name, inst, engine.status(inst))
    except NotFoundError:
        return None
    except VmctlError as error:  # damaged, of a later format, or of a mode that is not installed
        return Seen(name, inst, UNKNOWN, str(error))
    except OSError as error:  # a full disk: how it ended could not be recorded
        return Seen(name, inst, UNKNOWN, f"{error.strerror or error}")
