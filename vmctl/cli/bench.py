"""vmctl bench."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from vmctl.cli import modes, output
from vmctl.errors import SpecError

if TYPE_CHECKING:
    from bench.comparison import Comparison


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="workload file")
    parser.add_argument("--modes", default="host,container,vm", help="default: host,container,vm")
    parser.add_argument("--runs", type=int, default=3, help="counted starts in each mode (default: 3)")
    parser.add_argument("--seed", type=int, help="of the random order (default: made up, and printed)")
    parser.add_argument("--allow-missing", action="store_true", help="leave out modes that cannot run here")
    parser.add_argument("--out", metavar="DIR", help="write result.json and report.md there")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    modes.add_vm_choices(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 unless a mode gave no sample at all."""
    from bench import comparison, results
    from vmctl import spec

    names = [name for name in args.modes.split(",") if name]
    if args.runs < 1 or not names or len(set(names)) < len(names):
        raise SpecError("bench needs at least one run, and each mode once", hint="--modes host,container,vm --runs 3")
    modes.apply(args)
    seed = int.from_bytes(os.urandom(2)) if args.seed is None else args.seed
    progress = output.Progress()
    try:
        done = comparison.compare(
            spec.load(args.spec), names, args.runs, seed, progress, allow_missing=args.allow_missing
        )
    finally:
        progress.clear()
    if args.out:
        results.write(done, args.out)
    _show(done, args.format)
    return 0 if all(any(not sample.error for sample in done.of(mode)) for mode in done.modes) else 1


def _show(done: Comparison, form: str) -> None:
    from bench import results, table

    if form == "json":
        print(json.dumps(results.document(done), indent=1))
        return
    work = done.work
    output.note(f"{work.name}: image {work.image}, {' '.join(work.command or ('its own command',))}\n")
    columns = ["", *table.titles(done)]
    rows = [dict(zip(columns, (row.label, *row.cells), strict=True)) for row in table.rows(done)]
    output.show(rows, columns, "table")
    output.note("\n" + "\n".join(table.notes(done)))
