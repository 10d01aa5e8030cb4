"""vmctl inspect."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from typing import Any

from vmctl import instance
from vmctl.cli.ps import describe
from vmctl.errors import UnavailableError
from vmctl.footprint import footprint
from vmctl.instance import Instance
from vmctl.workload import named

EXAMPLE = "vmctl inspect web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")


def run(args: argparse.Namespace) -> int:
    """Print a JSON array."""
    print(json.dumps([_document(instance.load(name)) for name in args.names], indent=2))
    return 0


def _document(inst: Instance) -> dict[str, Any]:
    document = describe(inst)
    marks = inst.timeline.marks_ns
    first = marks.get("T0", 0)
    document.update(
        workload=named(inst.work),
        workload_digest=inst.work.digest(),
        image_digest=inst.state.image_digest,
        accelerator=inst.state.accelerator,
        boot=inst.state.boot,
        directory=inst.directory,
        marks_s={name: (at_ns - first) / 1e9 for name, at_ns in sorted(marks.items())},
        journal=inst.journal.entries(),
        footprint=None,
    )
    if document["status"] == "running":
        with suppress(UnavailableError):  # of a mode whose instances cannot be measured
            document["footprint"] = footprint(inst)._asdict()
    return document
