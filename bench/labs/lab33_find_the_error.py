"""Lab 33: published claims, computed again from the figures that are printed next to them."""

from __future__ import annotations

from bench.claims import published
from bench.claims.checking import RIGHT, check
from bench.labs.lab import HOLDS, REFUTED, UNDECIDABLE, Evidence, Lab, Place, Verdict, missing, text
from vmctl.errors import SpecError


def _gather(_: Place) -> Evidence:
    return {f"claim {number:02}": one.claim for number, one in enumerate(published.CLAIMS, 1)}


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(seen or ("claim 01",))):
        return unknown
    try:
        answers = {name: check(text(seen, name)) for name in seen}
    except SpecError as error:
        return Verdict(UNDECIDABLE, str(error))
    wrong = [f"{name}: {one.claim} ({one.gives})" for name, one in answers.items() if one.verdict != RIGHT]
    reason = f"{len(answers) - len(wrong)} of {len(answers)} fit their figures"
    return Verdict(REFUTED, f"{reason}; not {'; '.join(wrong)}") if wrong else Verdict(HOLDS, reason)


LAB = Lab(
    number=33,
    name="find-the-error",
    claim="A percentage or a ratio in a published comparison fits the figures next to it.",
    why="Nothing has to be measured to find these errors: a share is printed as a change, a bound leaves a figure out.",
    steps=(
        "read fifteen published claims: `vmctl lab claim --published --predict` asks of each whether it fits",
        "compute each from the figures that its source prints next to it, as `vmctl lab claim` does",
        "what rounding leaves open is in favour of the source: 9 of 12.8 GB can be 66 to 74 %",
    ),
    rule="holds if all of them fit their figures within rounding; refuted if one does not",
    modes=(),
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl lab claim with a claim of your textbook, or of a page that sells something",
        "the wrong ones: what would the words need, and which mistake explains the printed number?",
        "the right ones: what else has to be known before they can be believed? (rounds, host, order)",
    ),
)
