"""What a guest begins with that does not boot: the files of a saved one, checked before they are used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from vmctl.errors import UnavailableError
from vmctl.instances.instance import Instance
from vmctl.records import UnreadableError
from vmm import domain, files
from vmm.domain import Machine
from vmm.saved import shape
from vmm.saved.saving import DEVICES, DISK, RAM, SEED

if TYPE_CHECKING:
    from collections.abc import Mapping

RESTORED = "saved_machine"  # key of the state: the UUID of the machine whose memory it began with
_NAMES = (RAM, DEVICES, DISK, SEED)
_HOST, _FILES, _SHAPE = "host", "files", "devices"


class Origin(NamedTuple):
    """A saved guest."""

    folder: str
    facts: Mapping[str, Any]  # as `describe` has returned them
    what: str  # for messages
    whole: bool = True  # its memory is there; else only its disk
    own_files: bool = True  # its disk and its seed belong to that memory; else it is a template, without an identity
    resumes: bool = False  # it is the same guest, which was suspended: see suspension.py
    hint: str = "take it again"  # if it cannot be used

    def path(self, name: str) -> str:
        """Return the path of one of its files."""
        return os.path.join(self.folder, name)

    @property
    def kind(self) -> str:
        """What it is, for the record of an instance."""
        return "snapshot" if self.own_files else "template"

    @property
    def macs(self) -> tuple[str, ...]:
        """The MACs that its interfaces had."""
        return tuple(self.facts["macs"])

    def machine(self, machine: Machine, stdin: str) -> Machine:
        """Return the hardware of a guest that begins with it."""
        port = (f"{files.PORT_PREFIX}stdin", stdin) if self.facts["stdin"] else None
        if self.resumes:
            return machine._replace(resumes=True, stdin=port or machine.stdin)
        return machine._replace(
            kernel="", initrd="", cmdline="", balloon=False, ram=self.path(RAM), stdin=port or machine.stdin, dax=()
        )


def describe(xml: str, folder: str, emulator: str, accelerator: str) -> dict[str, Any]:
    """Return the facts about a saved guest, for its record; its files are complete, and are not written any more.

    QEMU opens the memory for reading and writing, also if it maps it privately, and each QEMU is another user. Its
    mode allows that; who reaches the file is decided by the folders above it, and by QEMU's own file system.
    """
    os.chmod(os.path.join(folder, RAM), 0o666)
    names = (name for name in sorted(os.listdir(folder)) if name in _NAMES)
    return {
        **hardware(xml, emulator, accelerator),
        _FILES: {name: _identity(os.path.join(folder, name)) for name in names},
    }


def hardware(xml: str, emulator: str, accelerator: str) -> dict[str, Any]:
    """Return the facts about the machine of a saved guest, and about this host."""
    devices = shape.of(xml)
    return {
        _SHAPE: devices.digest,
        "macs": list(devices.macs),
        "stdin": devices.stdin,
        "machine": devices.machine,
        _HOST: shape.host(emulator, accelerator),
    }


def _identity(path: str) -> list[int]:
    """Return what changes with each change of a file: its size, its inode, and the kernel's time of the last change."""
    status = os.stat(path, follow_symlinks=False)
    return [status.st_size, status.st_ino, status.st_ctime_ns]


def check(origin: Origin, emulator: str, accelerator: str) -> None:
    """Raise UnavailableError if it is of another host or QEMU, UnreadableError if one of its files has changed.

    A guest that has taken over its QEMU could write to the memory that others begin with. It cannot set the time.
    """
    facts = origin.facts
    if not (isinstance(facts.get(_FILES), dict) and {RAM} <= facts[_FILES].keys()):
        raise _lacking(origin)
    check_host(origin, emulator, accelerator)
    for name, found in facts[_FILES].items():
        try:
            same = _identity(origin.path(os.path.basename(name))) == found
        except OSError:
            raise UnreadableError(f"{origin.what} is damaged: its file {name} is missing", hint=origin.hint) from None
        if not same:
            text = f"{origin.what} is damaged: its file {name} was changed after it was made"
            raise UnreadableError(text, hint=origin.hint)


def check_host(origin: Origin, emulator: str, accelerator: str) -> None:
    """Raise UnavailableError if it is of another host or QEMU, UnreadableError if its record is damaged."""
    facts = origin.facts
    if not isinstance(facts.get(_HOST), dict):
        raise _lacking(origin)
    if differing := shape.differences(facts[_HOST], shape.host(emulator, accelerator)):
        raise UnavailableError(
            f"{origin.what} was made with another {' and another '.join(differing)}, and its memory fits only the same",
            hint=origin.hint,
        )


def _lacking(origin: Origin) -> UnreadableError:
    return UnreadableError(f"{origin.what} is damaged: its record lacks the facts of a guest", hint=origin.hint)


def check_devices(origin: Origin, machine: Machine) -> None:
    """Raise UnavailableError if a guest would have other devices than the saved one."""
    if shape.of(domain.domain_xml(machine)).digest != origin.facts.get(_SHAPE):
        raise UnavailableError(
            f"{origin.what} is of a guest with other devices: layers, networks, processors, or memory",
            hint=origin.hint,
        )


def of(inst: Instance) -> Origin | None:
    """Return what an instance begins with at its first start, of which it gets a lease; None if it boots.

    Raises NotFoundError if it was removed, UnreadableError.
    """
    if os.path.isdir(inst.suspended):
        from vmm.saved import suspension

        return suspension.find(inst)
    snapshot = inst.state.snapshot
    if snapshot is None or inst.state.starts:
        return None
    from vmctl.snapshots import record

    found = record.lease(str(snapshot.get("name")), str(snapshot.get("id")), inst)
    return Origin(found.folder, found.facts, f"the snapshot {found.name}", found.process_state)
