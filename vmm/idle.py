"""A guest on the disk of one that does not run: it executes nothing but our agent, so that files can be copied.

The host does not mount that disk: its file system was written by a guest, and the host's kernel would have to trust it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from images.store import store
from images.store.image import Image
from vmctl import ends, engine
from vmctl.backend import Attachment, Start
from vmctl.errors import StateError, UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmctl.spec.workload import VmOptions, Workload
from vmm import boot, control, disk, files, preparation
from vmm.backend import VmBackend
from vmm.start import GuestStart

ARGUMENT = "vmctl.idle"  # for the init of the guest, see vmm/guest/init
OF = "files_of"  # key of the state: the instance whose disk it is
STOP_S = 60.0


class _Idle(VmBackend):
    """Starts a guest on the disk of another one."""

    def __init__(self, path: str, of: str, **options: str) -> None:
        super().__init__(**options)
        self._path, self._of = path, of

    def prepare(self, inst: Instance, attachment: Attachment | None = None) -> Start:
        """See Backend."""
        os.link(self._path, files.disk(inst))
        inst.state.own[OF] = self._of
        machine, cell, launcher, *_ = preparation.prepare(inst, self.choices._replace(warm="off"), tied=True)
        machine = machine._replace(cmdline=f"{machine.cmdline} {ARGUMENT}")
        return GuestStart(inst, machine, cell, launcher, attachment)


@contextmanager
def reached(inst: Instance) -> Iterator[Instance]:
    """Yield the instance if it runs, else another one on its disk; the first cannot be started meanwhile.

    Raises UnavailableError for a disk image, and the errors of a start.
    """
    if processes.alive(inst.state.pid, inst.state.pid_start):
        yield inst
        return
    with inst.locked():
        if ends.status(inst) in ends.ALIVE:
            raise StateError(f"{inst.name} has just been started", hint="try again")
        ends.refuse_suspended(inst)
        image = store.find(inst.image)
        _refuse_disk(inst, image)
        if not os.path.exists(files.disk(inst)):  # it never ran
            disk.make(files.disk(inst), inst.work.resources.disk_bytes or disk.DEFAULT_SIZE_BYTES)
        end_left(inst)
        backend = _Idle(files.disk(inst), inst.name, **inst.state.options)
        work = Workload(
            name=f"files-{os.urandom(4).hex()}",
            image=inst.image,
            command=("none",),
            network="none",
            vm=VmOptions(kernel=inst.work.vm.kernel, boot="direct"),
        )
        with engine.running(work, backend, wait=False, options=inst.state.options) as start:
            yield start.inst
            with suppress(OSError):  # it has ended already
                control.request(start.inst, "poweroff")  # which writes what is in its memory to the disk
            ends.ends(start.inst, backend, STOP_S)


def end_left(inst: Instance) -> None:
    """Remove guests that a killed `cp` has left on the disk of this instance, whose lock the caller has."""
    path = files.disk(inst)
    if not os.path.exists(path) or os.stat(path).st_nlink == 1:
        return
    for name in instance.names():
        with suppress(OSError, VmctlError):
            other = instance.load(name)
            if OF in other.state.own and os.path.samefile(files.disk(other), path):
                engine.rm(name, force=True)


def _refuse_disk(inst: Instance, image: Image) -> None:
    if boot.kind(image, inst.work) == boot.DISK:
        raise UnavailableError(
            f"{inst.name} is not running, and only the system on its disk image can read that disk",
            hint=f"`vmctl start {inst.name}` first",
        )
