"""vmctl doctor."""

from __future__ import annotations

import argparse
from typing import Any

from vmctl import doctor
from vmctl.cli import output

EXAMPLE = "vmctl doctor --format json"
WORDS = {True: "ok", False: "MISSING", None: "note"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Show every check, then a hint for each that failed; return 1 if any failed."""
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

    return doctor.checks([("images", needs.needs())])


def _cell(name: str, value: Any) -> str:
    return WORDS[value] if name == "ok" else str(value)
