"""vmctl lab show."""

from __future__ import annotations

import argparse
import json
import textwrap

from bench import labs
from bench.labs.lab import Lab
from vmctl.cli import parser as parsers

EXAMPLE = "vmctl lab show same-port"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("lab", metavar="N|NAME", help="number or name of the lab")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="output format (default: table)")


def run(args: argparse.Namespace) -> int:
    """Print the text of a lab."""
    lab = labs.find(args.lab)
    if args.format == "json":
        print(json.dumps({key: value for key, value in lab._asdict().items() if not callable(value)}, indent=2))
        return 0
    print(text(lab))
    return 0


def text(lab: Lab) -> str:
    """Return the text of a lab for a person."""
    parts = [f"Lab {lab.number}: {lab.name}", f"Claim: {lab.claim}", f"Why it matters: {lab.why}", "Steps:"]
    parts += [f"  {number}. {step}" for number, step in enumerate(lab.steps, 1)]
    for name, values in lab.parameters.items():
        parts.append(f"Parameter {name}: {values[0]}; a seed draws of {', '.join(map(str, values))}")
    parts += [f"Published: {lab.published}"] * bool(lab.published)
    parts += [f"Rule: it {lab.rule}.", "To try next:", *(f"  - {one}" for one in lab.next)]
    width = parsers.columns()
    return "\n".join(textwrap.fill(part, width, subsequent_indent="    " * part.startswith(" ")) for part in parts)
