"""Guests that are suspended: memory and state of the devices in the folder of the instance, and no QEMU.

The same guest goes on later, with its disk, its seed and its addresses. Its memory is written into a new QEMU, so it
has memory as any other guest then, also a balloon, and nothing of what was saved is needed any more. The record is
written last and removed first: as long as it is there, the disk fits the memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from vmctl import records
from vmctl.backend import Problem
from vmctl.errors import UnavailableError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.light import json
from vmctl.linux import filetree
from vmctl.net import Link
from vmctl.records import UnreadableError
from vmm import boot, control, files, marks, monitor, preparation
from vmm.saved import adoption, origin, saving, taking
from vmm.saved.origin import Origin
from vmm.saved.saving import DEVICES, RAM
from vmm.saved.start import SavedStart, request

_RECORD = "suspended.json"
_SUMS, _DISK, _LINKS = "checksums", "disk", "links"


def problems(inst: Instance) -> Iterator[Problem]:
    """Yield why a guest cannot be suspended; nothing is changed."""
    name = inst.name
    if (inst.state.boot or boot.DIRECT) != boot.DIRECT:
        yield Problem(
            f"{name} boots a system, whose clock nobody would set when it goes on",
            f"`vmctl pause {name}` stops it where it is, in memory; `vmctl stop {name}` shuts it down",
        )
    for volume in inst.work.volumes:
        yield Problem(
            f"QEMU cannot save the device of the volume {volume.target}",
            f"`vmctl pause {name}` stops it where it is, in memory; `vmctl stop {name}` ends it and keeps its files",
        )
    if inst.state.machine.get("layers_by_dax"):
        yield Problem(
            f"QEMU cannot save the devices of large layers of {name}, which it reads in place",
            "a guest that is started with `vm: {warm: auto}` has disks for them",
        )
    if uri := inst.state.options.get("connect"):
        yield Problem(
            f"the libvirt daemon {uri} has the monitor of {name}", f"virsh --connect {uri} managedsave {name}"
        )
    elif not marks.has(inst, "exec"):
        yield Problem(f"{name} has not booted so far", f"`vmctl wait --for ready {name}`")


def suspend(inst: Instance, recorded: Callable[[], None]) -> int:
    """Save a guest and end it; return the bytes of its memory that were written.

    `recorded` is called when everything is on the disk, and before the guest ends. If anything fails before that, the
    guest goes on, and nothing is left. Raises VmctlError, OSError.
    """
    folder, token = inst.suspended, os.urandom(4).hex()
    filetree.remove_tree(folder)  # of a command that was killed
    os.mkdir(folder, 0o700)
    held = False

    def end() -> None:
        _record(inst, folder)
        recorded()
        control.end(inst)

    try:
        taking.hold(inst, token)
        held = True
        written = saving.save(inst, folder, disk=False, end=end).ram_bytes
    except BaseException:
        filetree.remove_tree(folder)
        if held:
            with suppress(VmctlError):
                request(inst, "release")
        raise
    control.await_recorder(inst)
    return written


def _record(inst: Instance, folder: str) -> None:
    with open(files.domain(inst), encoding="utf-8") as file:
        facts = origin.hardware(file.read(), preparation.emulator(), inst.state.accelerator or "")
    facts["machine"] = inst.state.own.get(origin.RESTORED, facts["machine"])  # as the guest has seen it when it booted
    facts[_SUMS] = {name: saving.checksum(os.path.join(folder, name)) for name in (RAM, DEVICES)}
    facts[_DISK] = _disk(inst)
    facts[_LINKS] = inst.state.links
    facts["saved_s"] = time.time()
    for name in (RAM, DEVICES):
        fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    with filetree.replacing(os.path.join(folder, _RECORD), durable=True) as path, open(path, "w") as file:
        file.write(json.dumps(records.versioned(facts)))


def _disk(inst: Instance) -> list[int]:
    """Return what changes when something writes to the disk: its size, and when it was written to."""
    status = os.stat(files.disk(inst))
    return [status.st_size, status.st_mtime_ns]


def is_whole(inst: Instance) -> bool:
    """Return whether the guest can go on, as far as its record shows."""
    return os.path.exists(os.path.join(inst.suspended, _RECORD))


def check(inst: Instance) -> None:
    """Raise UnreadableError if a suspended guest is damaged, UnavailableError if it is of another host or QEMU."""
    origin.check_host(find(inst), preparation.emulator(), inst.state.accelerator or "")


def find(inst: Instance) -> Origin:
    """Return what a suspended guest goes on with, checked as far as it can be without QEMU and this host.

    Raises UnreadableError, UnavailableError.
    """
    folder, what = inst.suspended, f"what was saved of {inst.name}"
    hint = f"`vmctl start --cold {inst.name}` boots it, with its files, without what was saved"
    try:
        facts = records.checked_format(records.read(os.path.join(folder, _RECORD), what), what)
        found = Origin(folder, facts, what, resumes=True, hint=hint)
        _check_files(inst, found)
    except FileNotFoundError:
        raise UnreadableError(f"{what} is incomplete: its record is missing", hint=hint) from None
    except VmctlError as error:
        error.hint = hint
        raise
    return found


def _check_files(inst: Instance, found: Origin) -> None:
    facts = found.facts
    if not isinstance(facts.get(_SUMS), dict) or not {RAM, DEVICES} <= facts[_SUMS].keys():
        raise UnreadableError(f"{found.what} is damaged: its record lacks the facts of a guest")
    for name in (RAM, DEVICES):
        if not os.path.isfile(found.path(name)):
            raise UnreadableError(f"{found.what} is damaged: its file {name} is missing")
    if _disk(inst) != facts.get(_DISK):
        raise UnavailableError(
            f"the disk of {inst.name} was written to after it was suspended, so its memory does not fit"
        )


class ResumedStart(SavedStart):
    """See vmctl.backend.Start: a guest that was suspended and goes on."""

    def _asked(self, links: Sequence[Link]) -> bytes:
        """Return what changes in the guest: its addresses, if those that it had are not free any more."""
        facts = self._origin.facts
        if facts.get(_LINKS) == self.inst.state.links and list(self._origin.macs) == [link.mac for link in links]:
            return adoption.unchanged(links)
        return adoption.identity(self.inst, links, self._origin.macs, machine_id=False)

    def _load_memory(self, qemu: monitor.Conversation) -> None:
        sums: dict[str, Any] = self._origin.facts[_SUMS]
        try:
            if self._machine.firmware:
                saving.load_firmware(qemu, self.inst, self._machine.firmware)
            found = {
                RAM: saving.load_memory(qemu, self.inst, self._origin.path(RAM)),
                DEVICES: saving.checksum(self._origin.path(DEVICES)),
            }
        except OSError as error:
            raise UnreadableError(f"{self._origin.what} cannot be read: {error}", hint=self._origin.hint) from None
        for name, value in found.items():
            if value != sums[name]:
                raise UnreadableError(
                    f"{self._origin.what} is damaged: its file {name} was changed", hint=self._origin.hint
                )

    def _before_it_runs(self) -> None:
        os.unlink(self._origin.path(_RECORD))  # from now on the disk changes

    def begin(self) -> None:
        """See Start."""
        super().begin()
        filetree.remove_tree(self._origin.folder)
