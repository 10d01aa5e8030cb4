"""vmctl: run the same workload as a QEMU/KVM guest, as a namespace container or as a plain process.

The names below are the Python API, see docs/python.md. Each is imported when it is first used: the command line imports
this file too.
"""

from __future__ import annotations

__version__ = "0.2.0"

_NAMES = {
    "vmctl.api.starting": ("run", "up", "find", "compare"),
    "vmctl.api.instance": ("Instance", "Status", "Exit"),
    "vmctl.api.commands": ("Running", "Result", "Where", "Line", "CommandFailed", "CommandTimeout", "TooMuchOutput"),
    "vmctl.api.snapshot": ("Snapshot", "Clones"),
    "vmctl.api.comparison": ("Comparison",),
    "vmctl.errors": (
        *("VmctlError", "SpecError", "UnavailableError", "NotFoundError", "ConflictError", "StateError"),
        *("CommandNotFoundError", "CommandNotExecutableError", "DeadlineError", "NotReady", "EndedEarly", "NoKvm"),
        *("NoSuchImage", "NoSuchInstance", "NoSuchSnapshot", "OutOfDisk", "OutOfMemory"),
    ),
}
TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmctl import aio as aio
    from vmctl.api.commands import CommandFailed as CommandFailed
    from vmctl.api.commands import CommandTimeout as CommandTimeout
    from vmctl.api.commands import Line as Line
    from vmctl.api.commands import Result as Result
    from vmctl.api.commands import Running as Running
    from vmctl.api.commands import TooMuchOutput as TooMuchOutput
    from vmctl.api.commands import Where as Where
    from vmctl.api.comparison import Comparison as Comparison
    from vmctl.api.instance import Exit as Exit
    from vmctl.api.instance import Instance as Instance
    from vmctl.api.instance import Status as Status
    from vmctl.api.snapshot import Clones as Clones
    from vmctl.api.snapshot import Snapshot as Snapshot
    from vmctl.api.starting import compare as compare
    from vmctl.api.starting import find as find
    from vmctl.api.starting import run as run
    from vmctl.api.starting import up as up
    from vmctl.errors import CommandNotExecutableError as CommandNotExecutableError
    from vmctl.errors import CommandNotFoundError as CommandNotFoundError
    from vmctl.errors import ConflictError as ConflictError
    from vmctl.errors import DeadlineError as DeadlineError
    from vmctl.errors import EndedEarly as EndedEarly
    from vmctl.errors import NoKvm as NoKvm
    from vmctl.errors import NoSuchImage as NoSuchImage
    from vmctl.errors import NoSuchInstance as NoSuchInstance
    from vmctl.errors import NoSuchSnapshot as NoSuchSnapshot
    from vmctl.errors import NotFoundError as NotFoundError
    from vmctl.errors import NotReady as NotReady
    from vmctl.errors import OutOfDisk as OutOfDisk
    from vmctl.errors import OutOfMemory as OutOfMemory
    from vmctl.errors import SpecError as SpecError
    from vmctl.errors import StateError as StateError
    from vmctl.errors import UnavailableError as UnavailableError
    from vmctl.errors import VmctlError as VmctlError


def __getattr__(name: str) -> object:
    """Return what the API has by this name. Raises AttributeError."""
    import sys

    for module, names in _NAMES.items():
        if name in names:
            __import__(module)
            found: object = getattr(sys.modules[module], name)
            globals()[name] = found
            return found
    if name == "aio":
        __import__("vmctl.aio")
        return sys.modules["vmctl.aio"]
    raise AttributeError(f"module 'vmctl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "aio", *(name for names in _NAMES.values() for name in names)])
