"""vmctl lab run."""

from __future__ import annotations

import argparse
import sys

from bench import labs
from bench.labs import lab, running
from vmctl import backends
from vmctl.cli import modes, output
from vmctl.cli.compare import MODES, chosen_modes
from vmctl.cli.lab import show
from vmctl.errors import SpecError
from vmctl.spec.units import format_seconds

EXAMPLE = "vmctl lab run shared-kernel --predict"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("labs", metavar="N|NAME", nargs="*", help="number or name of a lab")
    parser.add_argument("-a", "--all", action="store_true", help="run all labs")
    parser.add_argument("--predict", action="store_true", help="ask first what will come out, and compare afterwards")
    parser.add_argument("--modes", default=MODES, metavar="M,...", help=f"modes that may be used (default: {MODES})")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress and no evidence")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="output format (default: table)")
    modes.add_options(parser, sorted(backends.modes()))


def run(args: argparse.Namespace) -> int:
    """Run the labs and print evidence and verdict of each. Raises SpecError, NotFoundError."""
    if bool(args.labs) == args.all:
        raise SpecError("give labs, or --all", hint="`vmctl lab ls` lists them")
    found = labs.labs() if args.all else [labs.find(text) for text in args.labs]
    usable = chosen_modes(args.modes)
    progress = output.Progress(quiet=args.quiet)
    runner = running.Runner(modes.chosen(args, usable), usable, progress)
    outcomes = []
    for one in found:
        predicted = _prediction(one) if args.predict else None
        try:
            outcomes.append(runner.run(one, predicted))
        finally:
            progress.clear()
        if args.format == "table":
            _show(outcomes[-1], evidence=not args.quiet)
    if args.format == "json":
        import json

        print(
            json.dumps(
                [{**outcome._asdict(), "evidence": lab.plain(outcome.evidence)} for outcome in outcomes], indent=2
            )
        )
    return 0


def _prediction(one: lab.Lab) -> str:
    """Ask for a prediction. Raises SpecError at the end of the input."""
    output.note(show.text(one))
    while True:
        sys.stderr.write(f"What will come out: {', '.join(lab.CHOICES)}? ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise SpecError("--predict reads a line for each lab from standard input", hint="leave --predict out")
        matching = [choice for choice in lab.CHOICES if line.strip() and choice.startswith(line.strip().lower())]
        if len(matching) == 1:
            return matching[0]


def _show(outcome: running.Outcome, *, evidence: bool) -> None:
    from vmctl.console import visible

    print(f"Lab {outcome.number}, {outcome.name}: {outcome.claim}")
    if evidence:
        for name, value in outcome.evidence.items():
            print(visible(f"    {name}: {value}"))
    predicted = f" (predicted: {outcome.predicted})" if outcome.predicted else ""
    print(visible(f"  {outcome.verdict}{predicted}: {outcome.reason} [{format_seconds(outcome.took_s)}]"), flush=True)
