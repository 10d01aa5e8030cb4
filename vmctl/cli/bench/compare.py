"""vmctl bench compare."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.compare import Change

EXAMPLE = "vmctl bench compare before/result.json after/result.json"
COLUMNS = ("what", "mode", "before", "after", "change", "verdict")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("before", metavar="A.json", help="the first result.json, or its folder")
    parser.add_argument("after", metavar="B.json", help="the second result.json, or its folder")
    parser.add_argument("--ratios", action="store_true", help="compare the ratios between modes, even of other hosts")
    parser.add_argument("--other-workload", action="store_true", help="compare even if the workloads differ")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Print the changes from the first result to the second, with their intervals."""
    from bench import compare, result

    before, after = result.read(args.before), result.read(args.after)
    changes = compare.compare(before, after, ratios=args.ratios, other_workload=args.other_workload)
    control = None if args.ratios else compare.control(before, after)
    common = bool(changes)
    changes += [control] if control else []
    if args.format != "table":
        output.show([change._asdict() for change in changes], (), args.format)
        return 0
    if changes:
        output.print_table(COLUMNS, list(map(_row, changes)))
    if not common:
        output.note("the two results have no figure in common")
    notes = [
        "change: after/before, with its 95 % interval. It counts as a difference if the interval excludes 1 and is not "
        "wholly within 3 % of 1",
        *filter(None, [compare.moved(control) if control else ""]),
        *compare.left_out(before, after),
    ]
    output.note("\n" + "\n".join(notes))
    return 0


def _row(change: Change) -> tuple[str, ...]:
    from bench import formatting
    from bench.statistics import VERDICTS

    ratio = f"{change.ratio:.3g}"
    if change.low is not None and change.high is not None:
        ratio += f" ({change.low:.3g} to {change.high:.3g})"
    sides = (
        f"{value:.3g}" if change.base else formatting.quantity(value, change.unit)
        for value in (change.before, change.after)
    )
    mode = f"{change.mode}/{change.base}" if change.base else change.mode
    return (change.title, mode or "-", *sides, ratio, VERDICTS[change.verdict])
