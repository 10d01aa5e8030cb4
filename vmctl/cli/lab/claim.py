"""vmctl lab claim."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from bench.claims import checking, published, reading
from vmctl.cli.lab import asking
from vmctl.console import visible
from vmctl.errors import SpecError

EXAMPLE = 'vmctl lab claim "0.82 -> 0.6 s is 73 % faster"'
UNKNOWN = "not understood"


class _Result(NamedTuple):
    claim: str
    verdict: str
    gives: str
    needs: str
    about: str
    source: str
    predicted: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("claims", metavar="CLAIM", nargs="*", help="a claim in words, with its figures")
    parser.add_argument("-f", "--file", metavar="FILE", help="YAML list of claims: texts, or claim and source")
    parser.add_argument("--published", action="store_true", help="check fifteen published claims")
    parser.add_argument("--predict", action="store_true", help="ask for each first whether it is right")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="output format (default: table)")


def run(args: argparse.Namespace) -> int:
    """Check the claims and print what their figures give; return 1 if one is wrong. Raises SpecError."""
    if sum((bool(args.claims), bool(args.file), args.published)) != 1:
        raise SpecError("give claims, or --file, or --published", hint=checking.HINT)
    if args.published:
        asked = [*published.CLAIMS]
    elif args.file:
        asked = [published.Published(one.claim, "", one.source) for one in reading.claims(args.file)]
    else:
        asked = [published.Published(claim, "", "") for claim in args.claims]
    results = []
    for one in asked:
        results.append(_checked(one, alone=len(asked) == 1, predict=args.predict))
        if args.format == "table":
            print(visible("\n".join(_lines(results[-1]))), flush=True)
    if args.format == "json":
        import json

        print(json.dumps([one._asdict() for one in results], indent=2))
    elif args.predict:
        right = sum(one.predicted == one.verdict for one in results)
        print(f"{right} of {len(results)} predictions came true")
    return 0 if all(one.verdict == checking.RIGHT for one in results) else 1


def _checked(one: published.Published, *, alone: bool, predict: bool) -> _Result:
    """Check a claim. One that is not understood is a result among others, and an error if it is `alone`."""
    predicted = _prediction(one) if predict else ""
    try:
        answer = checking.check(one.claim)
    except SpecError as error:
        if alone:
            raise
        return _Result(one.claim, UNKNOWN, str(error), "", one.about, one.source, predicted)
    return _Result(*answer, one.about, one.source, predicted)


def _lines(one: _Result) -> Iterator[str]:
    yield one.claim
    predicted = f" (predicted: {one.predicted})" if one.predicted else ""
    yield f"  {one.verdict}{predicted}: {one.gives}"
    for what, text in (("but", one.needs), ("about", one.about), ("source", one.source)):
        if text:
            yield f"  {what}: {text}"


def _prediction(one: published.Published) -> str:
    about = f" ({one.about})" if one.about else ""
    choices = (checking.RIGHT, checking.WRONG)
    return asking.choice(visible(f"{one.claim}{about}: {', '.join(choices)}? "), choices, "claim")
