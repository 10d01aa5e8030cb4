"""vmctl spec."""

from __future__ import annotations

import argparse
import json

from vmctl import spec


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|schema")
    check = actions.add_parser("check", help="validate workload files")
    check.add_argument("files", metavar="SPEC", nargs="+")
    actions.add_parser("schema", help="print the JSON Schema, for editors")


def run(args: argparse.Namespace) -> int:
    """Check files or print the schema."""
    if args.action == "schema":
        print(json.dumps(spec.schema(), indent=2))
        return 0
    for path in args.files:
        work = spec.load(path)
        print(f"{path}: {work.name}, image {work.image}, {work.digest()}")
    return 0
