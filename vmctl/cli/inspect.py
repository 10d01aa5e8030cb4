"""vmctl inspect."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn

from vmctl import backends, limits, records
from vmctl.backend import HasCauses, HasReceipt
from vmctl.cli import output, selection
from vmctl.cli.ps import row
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.instances.folder import Home, absent
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError
from vmctl.survey import Seen, look

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl inspect web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")
    output.add_format_of_documents(parser, "State.Status")


def run(args: Namespace) -> int:
    """Print a JSON array, or the text of a template for each."""
    seen = [look(name) or _refuse(name) for name in selection.names(args.names)]
    documents = list(map(_document, seen))
    output.show_documents(documents, args.format, _like_docker)
    return 0


def _like_docker(document: dict[str, Any]) -> dict[str, Any]:
    from vmctl.cli import dockerlike

    return dockerlike.view(document)


def _refuse(name: str) -> NoReturn:
    raise absent(name)


def _document(seen: Seen) -> dict[str, Any]:
    document, inst = row(seen), seen.instance
    if inst is None:
        return {**document, "directory": Home(seen.name, "").directory}
    journal, reason = _journal(inst)
    marks = inst.timeline.marks_ns
    first = marks.get("T0", 0)
    document.update(
        workload=records.plain(inst.work),
        workload_digest=inst.work.digest(),
        image_digest=inst.state.image_digest,
        networks={name: address for name, address in inst.state.links.items() if name},
        accelerator=inst.state.accelerator,
        boot=inst.state.boot,
        warm=inst.state.warm or None,
        starts=inst.state.starts,
        removes=inst.state.removes,
        snapshot=inst.state.snapshot,
        reboots=_reboots(inst),
        receipt=_receipt(inst),
        machine=inst.state.machine or None,
        health_check=_check(inst),
        warnings=inst.state.warnings,
        weakened=inst.state.weakened,
        egress=inst.work.egress() if inst.work.joined() else None,
        limits={"asked": limits.asked(inst.work), "granted": inst.state.limits},
        resources=limits.effective(inst),
        directory=inst.directory,
        # those of the measurement rules; `vmctl timeline` shows the ends of phases
        marks_s={name: (at_ns - first) / 1e9 for name, at_ns in sorted(marks.items()) if name[0] == "T"},
        journal=journal,
        footprint=None,
        reason=document["reason"] or reason,
    )
    if document["status"] in ("running", "paused"):
        with suppress(Exception):  # not every mode can measure its instances, and it may have just ended
            document["footprint"] = footprint(inst)._asdict()
    return document


def _check(inst: Instance) -> dict[str, Any] | None:
    """Return the check of the last start and what it has found last; None without one."""
    if not inst.state.health:
        return None
    from vmctl.keeping import health

    seen = health.seen(inst)
    return {**inst.state.health, "last": seen._asdict() if seen else None}


def _receipt(inst: Instance) -> dict[str, Any] | None:
    """Return where its workload runs, as reported from inside; None if that is not known."""
    with suppress(VmctlError):
        return backends.ability(backends.load(inst.state.mode), HasReceipt).receipt(inst) or None
    return None


def _reboots(inst: Instance) -> int | None:
    """Return how many times the guest has booted again since its start; None in a mode that does not know that."""
    with suppress(VmctlError):
        backend = backends.load(inst.state.mode)
        return backend.reboots(inst) if isinstance(backend, HasCauses) else None
    return None


def _journal(inst: Instance) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Return the entries of an instance's journal, or None and the reason if they cannot be read."""
    try:
        return inst.journal.entries(), None
    except UnreadableError as error:
        return None, f"{inst.name}: {error}"
