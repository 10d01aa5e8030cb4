"""The conclusions of a result: one paragraph of plain words, with no more certainty than the verdicts allow.

Its sentences are what was measured, what differs, what does not, and what cannot be concluded on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import machine
from bench.model import Ratio, Result
from bench.questions import Question
from bench.report import words
from bench.statistics import ENOUGH

# verdict -> the words on two modes; see `bench.statistics.VERDICTS`
_SAME = {"equal": "equal within 3 %", "small": "less than 3 % apart"}
_NOT_SHOWN = ("undecided", "few")


def paragraph(result: Result) -> str:
    """Return the conclusions as one paragraph."""
    return " ".join((_measured(result), *_compared(result), *_unknown(result)))


def _measured(result: Result) -> str:
    plan = result.plan
    nouns = [words.noun(result, mode) for mode in plan.modes]
    rounds = f"{plan.runs} round{'s' * (plan.runs != 1)}"
    order = ", in random order" * (len(nouns) > 1)
    name = plan.workload.get("name", "the workload")
    return f"The workload “{name}” was started as {words.listed(nouns)}, in {rounds}{order}, on this machine."


def _compared(result: Result) -> Iterator[str]:
    """Yield for each pair of modes what differs, then what does not."""
    pairs = [
        (words.noun(result, mode), words.noun(result, base), found) for (mode, base), found in _pairs(result).items()
    ]
    for who, other, found in pairs:
        if differs := [_difference(result, question, ratio) for question, ratio in found if _differs(ratio)]:
            yield f"What differs between {who} and {other}: {'; '.join(differs)}."
    for who, other, found in pairs:
        for verdict, text in _SAME.items():
            if same := [_named(result, question) for question, ratio in found if ratio.verdict == verdict]:
                yield f"Of {who} and {other}, {words.listed(same)} {'is' if len(same) == 1 else 'are'} {text}."
        if unknown := [_named(result, question) for question, ratio in found if _not_shown(ratio)]:
            yield f"For {words.listed(unknown)}, neither a difference nor equality of {who} and {other} is shown."


def _pairs(result: Result) -> dict[tuple[str, str], list[tuple[Question, Ratio]]]:
    """Return the comparisons of each pair of modes: each mode with the first that answers the question."""
    found: dict[tuple[str, str], list[tuple[Question, Ratio]]] = {}
    for _, question in words.headlines(result):
        base = next((mode for mode in result.plan.modes if _answered(result, question, mode)), "")
        for ratio in result.ratios:
            if (ratio.key, ratio.base) == (question.key, base):
                found.setdefault((ratio.mode, base), []).append((question, ratio))
    return found


def _differs(ratio: Ratio) -> bool:
    return ratio.verdict in ("more", "less") or (ratio.verdict == "few" and words.separate(ratio))


def _not_shown(ratio: Ratio) -> bool:
    return ratio.verdict in _NOT_SHOWN and not _differs(ratio)


def _difference(result: Result, question: Question, ratio: Ratio) -> str:
    figure = words.figure(result, question.key, ratio.mode)
    how_much = words.multiple(figure, ratio) if figure is not None else ""
    if ratio.verdict == "few":
        how_much = f"{'more' if ratio.delta > 0 else 'less'} in every run"
    return f"{_named(result, question)} ({how_much})"


def _unknown(result: Result) -> Iterator[str]:
    """Yield what cannot be concluded from this result, and why."""
    if words.emulated(result):
        yield "The guest was emulated (TCG), so nothing is known here of a VM on KVM."
    if result.plan.runs < ENOUGH:
        yield f"Fewer than {ENOUGH} rounds have no interval, so small differences cannot be distinguished."
    if busy := machine.busy(result):
        yield busy
    for modes, asked in _unanswered(result).items():
        whose = words.listed([words.noun(result, mode) for mode in modes])
        yield f"For {words.listed(asked)}, there is no figure of {whose}."
    for _, question in words.headlines(result):
        if wrong := dict.fromkeys(words.noun(result, one.mode) for one in result.ratios if _invalid(one, question)):
            named = _named(result, question)
            yield f"The figure of {words.listed(list(wrong))} for {named} is not valid: cache or durability differs."


def _unanswered(result: Result) -> dict[tuple[str, ...], list[str]]:
    """Return the questions without a figure, by the modes that lack it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for _, question in words.headlines(result):
        if lacking := tuple(mode for mode in result.plan.modes if not _answered(result, question, mode)):
            found.setdefault(lacking, []).append(_named(result, question))
    return found


def _answered(result: Result, question: Question, mode: str) -> bool:
    figure = words.figure(result, question.key, mode)
    return figure is not None and figure.value is not None


def _invalid(ratio: Ratio, question: Question) -> bool:
    return ratio.verdict == "invalid" and ratio.key == question.key


def _named(result: Result, question: Question) -> str:
    """Return a question's title within a sentence."""
    title = words.heading(result, question)
    return title[:1].lower() + title[1:]
