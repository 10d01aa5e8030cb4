"""vmctl bench verify."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl.cli import each, output
from vmctl.console import visible

EXAMPLE = "vmctl bench verify results"
_SHOWN = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="result.json, or its folder")


def run(args: argparse.Namespace) -> int:
    """Compute every figure again; return 0 if all of them follow from the samples, else 1."""
    wrong = 0

    def hold(place: str) -> None:
        nonlocal wrong
        wrong += _wrong(place)

    return each(args.files, hold, echo=False) or int(bool(wrong))


def _wrong(place: str) -> int:
    """Print the problems of one result and return their number. Raises SpecError for an unreadable one."""
    from bench import result
    from bench.verify import verify, verify_reports, verify_samples

    found = result.read(place)
    problems = verify(found)
    folder = os.path.dirname(result.path_of(place))
    problems += verify_samples(found, folder)
    problems += [] if problems else verify_reports(found, folder)
    for problem in problems[:_SHOWN]:
        print(visible(f"{place}: {problem}"))
    if len(problems) > _SHOWN:
        print(f"{place}: and {len(problems) - _SHOWN} more")
    sys.stdout.flush()
    output.note(
        f"{place}: {len(found.figures)} figures and {len(found.ratios)} ratios computed again from "
        f"{len(found.samples)} samples: {f'{len(problems)} wrong' if problems else 'all as stated'}"
    )
    return len(problems)
