"""Memory and disk usage of an instance, and its helper processes."""

from __future__ import annotations

from vmctl import backends
from vmctl.backend import Footprint, HasFootprint
from vmctl.instances.instance import Instance
from vmctl.journal import Journal
from vmctl.linux import processes


def footprint(inst: Instance) -> Footprint:
    """Return the memory and disk usage of a running instance. Raises UnavailableError if its mode cannot measure it."""
    return backends.ability(backends.load(inst.state.mode), HasFootprint).footprint(inst)


def helpers(journal: Journal) -> dict[str, list[int]]:
    """Return the pids of the running helper processes in an instance's journal by role: forwarder, supervisor."""
    found: dict[str, list[int]] = {}
    for entry in journal.entries():
        pid, start = entry.get("pid"), entry.get("start")
        if entry["kind"] == "process" and isinstance(pid, int) and processes.alive(pid, start):
            found.setdefault(str(entry.get("role", "helper")), []).append(pid)
    return found
