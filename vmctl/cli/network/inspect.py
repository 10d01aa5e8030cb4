"""vmctl network inspect."""

from __future__ import annotations

import argparse

from vmctl import networks
from vmctl.cli import output
from vmctl.cli.network import ls
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

EXAMPLE = "vmctl network inspect bridge"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="network")
    output.add_format_of_documents(parser, "Subnet")


def run(args: argparse.Namespace) -> int:
    """Print a JSON array, or the text of a template for each."""
    output.show_documents([_document(networks.find(name)) for name in args.names], args.format)
    return 0


def _document(seen: networks.Seen) -> dict[str, Any]:
    return {**ls.row(seen), "instances": [member._asdict() for member in seen.members]}
