"""vmctl bench verify."""

from __future__ import annotations

import argparse
import os

from vmctl.cli import output

_SHOWN = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="result.json, or the folder it is in")


def run(args: argparse.Namespace) -> int:
    """Compute every figure again; 0 where all of them follow from the samples, else 1."""
    from bench import result
    from bench.verify import verify, verify_reports

    good = True
    for place in args.files:
        found = result.read(place)
        problems = verify(found)
        problems += [] if problems else verify_reports(found, os.path.dirname(result.path_of(place)))
        good = good and not problems
        for problem in problems[:_SHOWN]:
            print(f"{place}: {problem}")
        if len(problems) > _SHOWN:
            print(f"{place}: and {len(problems) - _SHOWN} more")
        output.note(
            f"{place}: {len(found.figures)} figures and {len(found.ratios)} ratios computed again from "
            f"{len(found.samples)} samples: {f'{len(problems)} wrong' if problems else 'all as stated'}"
        )
    return 0 if good else 1
