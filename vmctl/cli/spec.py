"""vmctl spec."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vmctl.spec import workloadfile

EXAMPLE = "vmctl spec check web.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|schema")
    check = actions.add_parser("check", help="validate workload files")
    check.add_argument("files", metavar="SPEC", nargs="+", help="workload file")
    schema = actions.add_parser("schema", help="print the JSON Schema, for editors")
    schema.add_argument(
        "of",
        nargs="?",
        choices=("workload", "recipe"),
        default="workload",
        help="kind of file (default: workload)",
    )


def run(args: argparse.Namespace) -> int:
    """Check files or print the schema."""
    if args.action == "schema":
        print(json.dumps(_schema(args.of), indent=2))
        return 0
    for path in args.files:
        work = workloadfile.load(path)
        print(f"{path}: {work.name}, image {work.image}, {work.digest()}")
    return 0


def _schema(of: str) -> dict[str, Any]:
    if of == "workload":
        return workloadfile.schema()
    from images.recipes import recipe

    return recipe.schema()
