"""The end of an instance that is removed when it has ended (`run --rm`): `python -m vmctl.keeping.remove NAME ID MARK`.

The supervisor of the run that has ended becomes this program. It waits for other commands of the instance, such as the
`start` that has its lock, as long as they take, and for a while for those who watch it. If it is killed, or the host is
restarted, the next command that lists the instance removes it: see `vmctl.survey`.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from vmctl import ends, private, removal
from vmctl.errors import ConflictError, NotFoundError, VmctlError
from vmctl.instances import instance, lastrecord
from vmctl.instances.folder import absent
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIES, _PAUSE_S = 10, 1.0  # for a removal that fails


def main(name: str, identity: str) -> None:
    """Remove the instance. Raises VmctlError and OSError if something of it cannot be removed, NotFoundError."""
    private.set_umask()
    _locked(name, identity, _record)
    lastrecord.wait_for_holders(instance.load(name))
    for left in reversed(range(_TRIES)):
        try:
            _locked(name, identity, ended)
            return
        except NotFoundError:
            raise
        except (VmctlError, OSError):  # for example a mount in use
            if not left:
                raise
        time.sleep(_PAUSE_S)


def _locked(name: str, identity: str, act: Callable[[Instance], object]) -> None:
    """Do something with the instance, as soon as no other command has its lock. Raises NotFoundError."""
    while True:
        inst = instance.load(name)
        with suppress(ConflictError), inst.locked():
            if inst.id != identity or inst.state.supervisor_pid != os.getpid():
                raise absent(name)  # it was started meanwhile, or is another one
            act(inst)
            return


def ended(inst: Instance) -> None:
    """Record the end of an instance, for those who watch it, and remove the instance; the caller has the lock."""
    _record(inst)
    removal.remove(inst, ends.backend_of(inst))


def _record(inst: Instance) -> None:
    if inst.state.status == "running":
        ends.record_end(inst, ends.backend_of(inst))
        with suppress(OSError):  # a full disk
            inst.save()


if __name__ == "__main__":
    with suppress(VmctlError, OSError):  # what is left is removed by the next command that lists it
        main(*sys.argv[1:3])
    os._exit(0)
