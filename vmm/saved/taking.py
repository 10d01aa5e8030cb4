"""Take a snapshot of a guest: see vmctl/snapshots/protocol.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from images.store import store
from vmctl import leases
from vmctl.backend import Problem
from vmctl.ends import SUSPENDED
from vmctl.errors import StateError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmctl.snapshots.protocol import Taken
from vmctl.snapshots.record import Snapshot
from vmctl.spec.workload import Workload
from vmm import accelerator, boot, files, marks, preparation
from vmm.choices import Choices
from vmm.saved import origin, saving, shape
from vmm.saved.start import await_mark, request

HOLD_S, SSHD_S = 60.0, 60.0
CLONE_BYTES = 64 << 20  # of the memory of a clone that does little: QEMU, and pages that were written
_IN_MEMORY = "what programs have drawn from random numbers and keep in their memory is the same in all clones"


def problems(inst: Instance) -> Iterator[Problem]:
    """Yield why no snapshot of a guest can be taken."""
    if (inst.state.boot or boot.DIRECT) != boot.DIRECT:
        yield Problem(
            f"{inst.name} boots a system, which would have to make its identity anew in each clone",
            "only guests with `boot: direct` can be saved; `vmctl commit` makes an image of this one",
        )
    if inst.work.volumes:
        yield Problem(
            f"{inst.name} has volumes, and QEMU cannot save the devices of volumes",
            "leave out `volumes`, or copy the files into the instance by `vmctl cp`",
        )
    if uri := inst.state.options.get("connect"):
        yield Problem(f"the libvirt daemon {uri} has the monitor of {inst.name}", "start it without --connect")
    if inst.state.status == SUSPENDED:
        yield Problem(f"{inst.name} is suspended", f"`vmctl resume {inst.name}` first")
    if not processes.alive(inst.state.pid, inst.state.pid_start):
        return
    if inst.is_paused():
        yield Problem(
            f"{inst.name} is paused, and has to stop its workload itself", f"`vmctl unpause {inst.name}` first"
        )
    if shape.of(_xml(inst)).balloon:
        yield Problem(
            f"{inst.name} has a memory balloon, by which a clone could destroy the memory of all others",
            "start it with `vm: {warm: auto}` in its file or with --warm auto; or stop it: then its files are taken",
        )
    if not marks.has(inst, "exec"):
        yield Problem(f"{inst.name} has not booted so far", f"`vmctl wait --for ready {inst.name}`")


def _xml(inst: Instance) -> str:
    with open(files.domain(inst), encoding="utf-8") as file:
        return file.read()


def take(inst: Instance, holder: leases.User, *, running: bool) -> Taken:
    """See HasSnapshots. Raises VmctlError, OSError."""
    store.lease(inst.image, holder)
    if not running:
        saving.copy_sparse(files.disk(inst), os.path.join(holder.directory, saving.DISK))
        return Taken({}, clone_disk_bytes=os.stat(files.disk(inst)).st_blocks * 512)
    if inst.state.address:
        await_mark(inst, "ssh", SSHD_S)  # it starts later than the workload, and its key is to be changed
    begin = time.monotonic()
    with held(inst):
        saving.save(inst, holder.directory)
        pause_s = time.monotonic() - begin
    saving.copy_sparse(files.seed(inst), os.path.join(holder.directory, saving.SEED))
    facts = origin.describe(_xml(inst), holder.directory, preparation.emulator(), inst.state.accelerator or "")
    facts["machine"] = inst.state.own.get(origin.RESTORED, facts["machine"])  # as the guest has seen it when it booted
    return Taken(
        facts,
        process_state=True,
        pause_s=pause_s,
        left_out=(_IN_MEMORY,),
        clone_memory_bytes=CLONE_BYTES,
        clone_disk_bytes=os.stat(os.path.join(holder.directory, saving.DISK)).st_blocks * 512,
    )


@contextmanager
def held(inst: Instance) -> Iterator[None]:
    """Let the guest stop its workload, so that nothing of it runs in a clone before that has its own identity.

    If this command dies, the workload goes on after a minute. Raises StateError, VmctlError.
    """
    token = os.urandom(4).hex()
    try:
        hold(inst, token)
        yield
    finally:
        with suppress(VmctlError):
            request(inst, "release")
    await_mark(inst, f"released {token}", HOLD_S)


def hold(inst: Instance, token: str) -> None:
    """Let the guest stop its workload, until it gets another request, or a minute has passed. Raises StateError."""
    request(inst, f"hold {token}")
    try:
        await_mark(inst, f"held {token}", HOLD_S)
    except VmctlError as error:
        raise StateError(f"{inst.name} did not stop its workload: {error}", hint="try again") from None


def clone_problems(snapshot: Snapshot, work: Workload, choices: Choices) -> Iterator[Problem]:
    """Yield why guests cannot begin with a snapshot on this host."""
    if not snapshot.process_state:
        return
    try:
        chosen = accelerator.choose(choices.accel, work.vm.kernel)
        saved = origin.Origin(snapshot.folder, snapshot.facts, f"the snapshot {snapshot.name}")
        origin.check(saved, preparation.emulator(), chosen.name)
    except VmctlError as error:
        yield Problem(str(error), error.hint)
