"""vmctl lab check."""

from __future__ import annotations

import argparse
import sys

from bench.handins import assertions, check, grades
from bench.handins import record as records
from bench.handins.check import WRONG, Finding
from bench.handins.grades import Checked
from vmctl.cli import output
from vmctl.console import visible
from vmctl.errors import SpecError, VmctlError

EXAMPLE = "vmctl lab check --assert course.yaml --format moodle handins/*.json"
COLUMNS = ("file", "student", "labs", "points", "wrong", "doubtful")
FORMATS = ("table", "json", "moodle", "gradescope", "autolab")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="record of a run of labs, its folder, or a notebook of it"
    )
    parser.add_argument("--assert", dest="asked", metavar="FILE", help="YAML file with what a hand-in has to have")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="moodle: CSV; gradescope: results.json; autolab: its last line",
    )


def run(args: argparse.Namespace) -> int:
    """Check the records and print what is wrong; return 1 if something is. Raises SpecError."""
    if args.format in ("gradescope", "autolab") and len(args.files) > 1:
        raise SpecError(f"--format {args.format} is for one hand-in", hint="call it once for each")
    asked = assertions.read(args.asked) if args.asked else assertions.Assertions()
    found, code = {}, 0
    for file in args.files:
        try:
            found[file] = records.read(file)
        except VmctlError as error:
            if len(args.files) == 1:
                raise
            output.note(visible(f"{error}"))
            code = 1
    shared = check.shared(found)
    checked = [_checked(file, record, asked, shared) for file, record in found.items()]
    _print(checked, args.format)
    return 1 if any(one.wrong() for one in checked) else code


def _checked(
    file: str, record: records.Record, asked: assertions.Assertions, shared: list[tuple[str, str, str]]
) -> Checked:
    found = [*check.check(record), *assertions.check(record, asked)]
    for one, other, text in shared:
        if file in (one, other):
            found.append(Finding(WRONG, "", f"shared with {other if file == one else one}: {text}"))
    return Checked(file, record, tuple(found), asked)


def _print(checked: list[Checked], form: str) -> None:
    if form == "moodle":
        sys.stdout.write(grades.moodle(checked))
    elif form == "gradescope":
        print("\n".join(map(grades.gradescope, checked)))
    elif form == "autolab":
        print("\n".join(map(grades.autolab, checked)))
    elif form == "json":
        import json

        rows = [{**_row(one), "findings": [finding._asdict() for finding in one.findings]} for one in checked]
        print(json.dumps(rows, indent=2))
    else:
        output.print_table(COLUMNS, [[str(_row(one)[name]) for name in COLUMNS] for one in checked])
        for one in checked:
            for finding in one.findings:
                print(visible(f"{one.file}: {finding.level}: {grades.sentence(finding)}"))


def _row(one: Checked) -> output.Row:
    wrong = len(one.wrong())
    return {
        "file": one.file,
        "student": one.record.student,
        "labs": len(check.confirmed(one.record, one.findings)),
        "points": f"{one.score:g} of {one.most:g}",
        "wrong": wrong,
        "doubtful": len(one.findings) - wrong,
    }
