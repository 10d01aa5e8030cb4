"""vmctl snapshot inspect."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from vmctl.snapshots.record import Snapshot

EXAMPLE = "vmctl snapshot inspect golden"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="SNAPSHOT", nargs="+", help="name of a snapshot")
    output.add_format_of_documents(parser, "pause_s")


def run(args: argparse.Namespace) -> int:
    """Print a JSON array, or the text of a template for each."""
    from vmctl.snapshots import record

    output.show_documents([document(record.find(name)) for name in args.names], args.format, dict)
    return 0


def document(found: Snapshot) -> dict[str, Any]:
    """Return all that is known about a snapshot."""
    from vmctl.cli.snapshot.ls import row

    return {**found._asdict(), **row(found), "left_out": list(found.left_out), "folder": found.folder}
