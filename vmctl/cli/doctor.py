"""vmctl doctor."""

from __future__ import annotations

import argparse
from typing import Any

from vmctl import doctor
from vmctl.cli import output
from vmctl.errors import VmctlError
from vmctl.needs import Need, Orphan

EXAMPLE = "vmctl doctor --fix"
WORDS = {True: "ok", False: "MISSING", None: "note"}
LEFT = "left behind"  # the check of orphans
_SHOWN = 3  # of the orphans in one cell


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--fix",
        action="store_true",
        help="remove what killed commands and crashed hosts have left behind, and print it; nothing is checked",
    )
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Show every check, then a hint for each that failed; return 1 if any failed."""
    if args.fix:
        return _fix(args.format)
    found = checks()
    rows = [check._asdict() for check in found]
    output.show(rows, ("ok", "name", "found", "needed_by"), args.format, _cell)
    for check in found:
        if check.hint and check.ok is not True and args.format == "table":
            output.note(f"{check.name}: {check.hint}")
    return 1 if any(check.ok is False for check in found) else 0


def checks() -> list[doctor.Check]:
    """Return the checks of the host, of every mode and of the image store."""
    from images.upkeep import needs

    return doctor.checks([("images", needs.needs()), ("every mode", [_left_behind()])])


def _orphans() -> list[Orphan]:
    from images.upkeep import orphans as of_images
    from vmctl.instances import orphans
    from vmctl.snapshots import record

    of_snapshots = [Orphan("unfinished snapshot", path, record.remove_unfinished) for path in record.unfinished()]
    return [*orphans.find(), *of_images.find(), *of_snapshots]


def _left_behind() -> Need:
    """Return whether killed commands have left objects behind; they harm nobody, so it is only a note."""
    names = [f"{orphan.kind} {orphan.name}" for orphan in _orphans()]
    if not names:
        return Need(LEFT, True, "nothing", purpose="a clean host")
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return Need(
        LEFT, None, "; ".join(names[:_SHOWN]) + more, hint="`vmctl doctor --fix` removes it", purpose="a clean host"
    )


def _fix(form: str) -> int:
    """Remove the orphans and print what was done; return 1 if any is still there."""
    rows = []
    for orphan in _orphans():
        try:
            orphan.remove()
            rows.append({"kind": orphan.kind, "name": orphan.name, "done": "removed"})
        except (VmctlError, OSError) as error:
            rows.append({"kind": orphan.kind, "name": orphan.name, "done": f"failed: {error}"})
    if not rows and form == "table":
        print("nothing was left behind")
        return 0
    output.show(rows, ("kind", "name", "done"), form, _cell)
    return 1 if any(row["done"] != "removed" for row in rows) else 0


def _cell(name: str, value: Any) -> str:
    return WORDS[value] if name == "ok" else str(value)
