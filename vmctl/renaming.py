"""Give an instance another name: its folder, the leases that lead to the folder, and its unit.

Only one that does not run: the processes of a running one write to its folder by this name, its control group has it,
and others reach it by it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import backends, engine, ids, leases, removal
from vmctl.errors import StateError
from vmctl.instances import eventlog, instance
from vmctl.instances.folder import Home
from vmctl.instances.instance import WORKLOAD, Instance
from vmctl.linux import filetree
from vmctl.named import TYPE_CHECKING
from vmctl.spec.rules import check_name

if TYPE_CHECKING:
    from typing import Any


def rename(inst: Instance, name: str) -> None:
    """Rename an instance. Raises SpecError, ConflictError if the name is taken, StateError if it runs, OSError."""
    check_name(name)
    backend = backends.load(inst.state.mode, inst.state.options)
    with inst.locked():
        if engine.status(inst, backend) == "running":
            raise StateError(
                f"{inst.name} is running: its processes use its folder by this name",
                hint=f"`vmctl stop {inst.name}`, then rename it, then `vmctl start {name}`",
            )
        new = Home(name, inst.id)
        try:
            os.mkdir(new.directory, 0o700)  # takes the name; leases that lead to it are valid from now on
        except FileExistsError:
            raise instance.taken(name) from None
        units: list[str] = []
        try:
            if not inst.state.waiting:
                removal.end_run(inst, backend)
            units = _without_unit(inst, name)
            entries = [_moved(inst, new, entry) for entry in inst.journal.entries()]
            os.rename(inst.directory, new.directory)
        except BaseException:
            _enable(inst, units)
            with suppress(OSError):
                os.rmdir(new.directory)
            raise
    renamed = Instance(name, inst.work._replace(name=name), inst.state)
    renamed.journal.replace(entries)
    filetree.write_atomic(renamed.path(WORKLOAD), renamed.work.to_json())
    eventlog.note(renamed, "rename", old_name=inst.name)
    if units:
        with renamed.locked():
            _enable(renamed, units)


def _without_unit(inst: Instance, name: str) -> list[str]:
    """Remove the unit that starts the instance at boot by its name; return the folders of what was removed."""
    paths = [entry["path"] for entry in inst.journal.entries() if entry["kind"] == "unit"]
    if paths:
        from vmctl.keeping import unit
        from vmctl.linux import systemd

        for path in paths:
            unit.refuse_others(os.path.join(os.path.dirname(path), systemd.name(name)))
        unit.disable(inst)
    return [os.path.dirname(path) for path in paths]


def _enable(inst: Instance, folders: list[str]) -> None:
    for folder in folders:
        from vmctl.keeping import unit

        unit.enable(inst, folder)


def _moved(inst: Instance, new: Home, entry: dict[str, Any]) -> dict[str, Any]:
    """Let the lease of a journal entry lead to the new folder; return the entry that describes it then."""
    kind = entry["kind"]
    if kind == ids.KIND:
        ids.hand_over(inst.directory, new.directory, entry)
    elif kind == "link":
        from vmctl.net import names, switch

        with switch.locked() as folder:
            if switch.holds(folder, entry["address"], inst.directory):
                switch.hand_over(folder, entry["address"], new.directory)
                if "network" in entry:  # the next start makes the new names known
                    names.remove(entry["network"], entry["address"])
    elif kind == leases.KIND:
        return {**entry, "name": leases.hand_over(entry["name"], new.name, new.directory)}
    elif kind == "layer":
        leases.hand_over(leases.named(leases.layer(entry["key"]), inst), new.name, new.directory)
    return entry
