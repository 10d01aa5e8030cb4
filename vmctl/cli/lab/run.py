"""vmctl lab run."""

from __future__ import annotations

import argparse
import os

from bench import labs
from bench.handins import session as sessions
from bench.labs import lab, running
from vmctl import backends
from vmctl.cli import modes, output
from vmctl.cli.compare import MODES, chosen_modes
from vmctl.cli.lab import asking, show
from vmctl.errors import SpecError
from vmctl.spec.units import format_seconds

EXAMPLE = "vmctl lab run shared-kernel --predict"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("labs", metavar="N|NAME", nargs="*", help="number or name of a lab")
    parser.add_argument("-a", "--all", action="store_true", help="run all labs")
    parser.add_argument("--predict", action="store_true", help="ask first what will come out, and compare afterwards")
    parser.add_argument("--step", action="store_true", help="show each lab first, and wait for Enter between its parts")
    parser.add_argument("--modes", default=MODES, metavar="M,...", help=f"modes that may be used (default: {MODES})")
    parser.add_argument(
        "--out",
        default=sessions.FOLDER,
        metavar="DIR",
        help=f"folder of the record, which runs are added to (default: {sessions.FOLDER})",
    )
    parser.add_argument("--resume", action="store_true", help="leave out labs that the record has a verdict of")
    parser.add_argument("--student", default="", metavar="NAME", help="name in the record")
    parser.add_argument("--seed", default="", metavar="TEXT", help="name or number that chooses the labs' parameters")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress and no evidence")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="output format (default: table)")
    modes.add_options(parser, sorted(backends.modes()))


def run(args: argparse.Namespace) -> int:
    """Run the labs and print evidence and verdict of each. Raises SpecError, NotFoundError."""
    if bool(args.labs) == args.all:
        raise SpecError("give labs, or --all", hint="`vmctl lab ls` lists them")
    found = labs.labs() if args.all else [labs.find(text) for text in args.labs]
    usable = chosen_modes(args.modes)
    options = modes.chosen(args, usable)
    progress = output.Progress(quiet=args.quiet)
    asked = {"resume": args.resume, "student": args.student, "seed": args.seed}
    outcomes = []
    with sessions.opened(args.out, options, **asked) as session:
        runner = running.Runner(options, usable, progress, session.record.seed)
        for one in found:
            if args.resume and session.decided(one):
                output.note(f"lab {one.number}, {one.name}: the record has its verdict")
                continue
            predicted = _before(one, args)
            load_before = os.getloadavg()[0]
            try:
                outcome = runner.run(one, predicted)
            finally:
                progress.clear()
            cited = session.add(outcome, load_before)
            outcomes.append((cited, outcome))
            if args.format == "table":
                _show(cited, outcome, evidence=not args.quiet, step=args.step)
    if args.format == "json":
        import json

        rows = [{"id": cited, **one._asdict(), "evidence": lab.plain(one.evidence)} for cited, one in outcomes]
        print(json.dumps(rows, indent=2))
    return 0


def _before(one: lab.Lab, args: argparse.Namespace) -> str | None:
    """Show the lab if it is to be predicted or stepped through, and return the prediction. Raises SpecError."""
    if args.predict or args.step:
        output.note(show.text(one))
    predicted = _prediction() if args.predict else None
    if args.step:
        _enter("to run it")
    return predicted


def _prediction() -> str:
    return asking.choice(f"What will come out: {', '.join(lab.CHOICES)}? ", lab.CHOICES)


def _enter(why: str) -> None:
    asking.line(f"Enter {why} ", "--step")


def _show(cited: str, outcome: running.Outcome, *, evidence: bool, step: bool) -> None:
    from vmctl.console import visible

    print(f"Lab {outcome.number}, {outcome.name}: {outcome.claim}")
    if evidence:
        for name, value in outcome.evidence.items():
            print(visible(f"    {name}: {value}"))
    if step:
        _enter("for the verdict")
    predicted = f" (predicted: {outcome.predicted})" if outcome.predicted else ""
    took = format_seconds(outcome.took_s)
    print(visible(f"  {outcome.verdict}{predicted}: {outcome.reason} [{took}, run {cited}]"), flush=True)
