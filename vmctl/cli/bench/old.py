"""vmctl bench."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from vmctl.cli import modes, output
from vmctl.errors import SpecError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", nargs="?", help="workload file")
    parser.add_argument("--peers", action="store_true", help="measure our own cost beside runc's and others' instead")
    parser.add_argument("--images", action="store_true", help="measure an image's import beside tar and mkfs.erofs")
    parser.add_argument("--modes", default="host,container,vm", help="default: host,container,vm")
    parser.add_argument("--runs", type=int, default=3, help="counted starts in each mode (default: 3)")
    parser.add_argument("--seed", type=int, help="of the random order (default: made up, and printed)")
    parser.add_argument("--allow-missing", action="store_true", help="leave out modes that cannot run here")
    parser.add_argument("--out", metavar="DIR", help="write result.json and report.md there")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    modes.add_vm_choices(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 unless a mode gave no sample at all."""
    if args.runs < 1 or [args.peers, args.images, bool(args.spec)].count(True) != 1:
        raise SpecError(
            "bench needs a workload file, --peers or --images, and at least one run", hint="`vmctl bench --help`"
        )
    if args.images and args.out:
        raise SpecError("bench --images writes no files", hint="`--format json >FILE` has every sample")
    modes.apply(args)
    args.seed = int.from_bytes(os.urandom(2)) if args.seed is None else args.seed
    progress = output.Progress()
    try:
        if args.images:
            return _images(args, progress)
        return _peers(args, progress) if args.peers else _comparison(args, progress)
    finally:
        progress.clear()


def _comparison(args: argparse.Namespace, progress: output.Progress) -> int:
    from bench import comparison, results, table
    from vmctl import spec

    names = args.modes.split(",")
    work = spec.load(args.spec)
    done = comparison.compare(work, names, args.runs, args.seed, progress, allow_missing=args.allow_missing)
    progress.clear()
    if args.out:
        results.write(done, args.out)
    if args.format == "json":
        print(json.dumps(results.document(done), indent=1))
    else:
        output.note(f"{work.name}: image {work.image}, {' '.join(work.command or ('its own command',))}\n")
        _table(("", *table.titles(done)), [(row.label, *row.cells) for row in table.rows(done)])
        output.note("\n" + "\n".join(table.notes(done)))
    return 0 if all(any(not sample.error for sample in done.of(mode)) for mode in done.modes) else 1


def _peers(args: argparse.Namespace, progress: output.Progress) -> int:
    from bench.peers import report

    done = report.measure(args.runs, args.seed, progress)
    progress.clear()
    if args.out:
        report.write(done, args.out)
    if args.format == "json":
        print(json.dumps(report.document(done), indent=1))
        return 0
    for one in done.studies:
        output.note(f"\n{one.title}")
        _table(report.STUDY_COLUMNS, report.study_rows(one))
    output.note("\nclaims")
    _table(report.VERDICT_COLUMNS, report.verdict_rows(done))
    output.note("\n" + "\n".join(report.notes(done)))
    return 0


def _images(args: argparse.Namespace, progress: output.Progress) -> int:
    from bench import importing

    done = importing.measure(args.runs, args.seed, progress)
    progress.clear()
    if args.format == "json":
        print(json.dumps(importing.document(done), indent=1))
        return 0
    _table(importing.COLUMNS, importing.rows(done))
    output.note("\n" + "\n".join(importing.notes(done)))
    return 0


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    sys.stdout.flush()
    output.show([dict(zip(columns, row, strict=True)) for row in rows], columns, "table")
    sys.stdout.flush()
