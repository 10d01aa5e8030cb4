"""A result as text for a terminal: one column per mode, one row per question, and the notes below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bench import cutshort, machine, questions
from bench.formatting import UNKNOWN, quantity, ratio
from bench.model import Figure, Result
from bench.questions import Question
from bench.statistics import ENOUGH, VERDICTS

ANSWER_CHARACTERS = 28
SHOWN_FAILURES = 5  # of each kind in each mode


def titles(result: Result) -> list[str]:
    """Return the columns' names: each mode, with the accelerator of its guests."""
    return [f"{mode} ({name})" if (name := result.accelerator(mode)) else mode for mode in result.plan.modes]


def rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: a question, and each mode's answer."""
    figures = {(one.key, one.mode): one for one in result.figures}
    for _, question in questions.of(result.plan):
        answers = [figures.get((question.key, mode)) for mode in result.plan.modes]
        yield (question.title, *(quantity(one.value, one.unit) if one else UNKNOWN for one in answers))
        yield from _spread(question, answers)
    yield (
        "failed samples",
        *(str(sum(bool(s.error) for s in result.samples if s.mode == m)) for m in result.plan.modes),
    )
    yield from _looks(result)


def _spread(question: Question, answers: Sequence[Figure | None]) -> Iterator[tuple[str, ...]]:
    """Yield the row of intervals below a headline question."""
    if question.headline and any(one is not None and one.low is not None for one in answers):
        texts = (
            f"{quantity(o.low, o.unit)} to {quantity(o.high, o.unit)}" if o and o.low is not None else UNKNOWN
            for o in answers
        )
        yield ("  95 % interval", *texts)


def _looks(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield the rows with the instances' answers in the warm-up rounds."""
    code = "code of `exit 7`" if questions.is_service(result.plan) else "its exit code"
    for name, title in (("page", "its page"), ("kernel", "uname -r"), ("exit_code", code)):
        found = [_text(result, mode, name) for mode in result.plan.modes]
        if any(text is not None for text in found):
            yield (title, *(UNKNOWN if text is None else _shortened(text) for text in found))


def _text(result: Result, mode: str, name: str) -> str | None:
    return next((one.texts[name] for one in result.samples if one.mode == mode and name in one.texts), None)


def _shortened(text: str) -> str:
    line = (text.splitlines() or [""])[0]
    return line if len(line) <= ANSWER_CHARACTERS else line[: ANSWER_CHARACTERS - 3] + "..."


def ratio_rows(result: Result) -> Iterator[tuple[str, str, str, str]]:
    """Yield the ratios of the headline questions: question, modes, ratio with interval, verdict."""
    asked = questions.of(result.plan)
    heads = {question.key: question.title.strip() for _, question in asked if question.headline}
    for one in result.ratios:
        if one.key in heads:
            yield (heads[one.key], f"{one.mode} / {one.base}", ratio(one), VERDICTS[one.verdict])


def notes(result: Result) -> Iterator[str]:
    """Yield the sentences below the table."""
    plan = result.plan
    yield from machine.first(result)
    yield (
        f"Medians of {plan.runs} round{'s' * (plan.runs > 1)}, every mode once in each, in random order "
        f"(seed {plan.seed}), after {plan.warm_ups} discarded."
    )
    if plan.runs < ENOUGH:
        yield f"Fewer than {ENOUGH} rounds: no interval is given, and small differences mean nothing."
    yield from filter(None, [machine.sentence(result)])
    if plan.cold:
        yield "Cold: before every start, the files that the start reads were evicted from the page cache."
    if any(one.texts.get("accelerator") == "tcg" for one in result.samples):
        yield "TCG: the guest's instructions were translated by software. With KVM its times would be very different."
    yield from (f"{one.mode}{f', {one.kind},' * bool(one.kind)} was left out: {one.reason}" for one in result.refusals)
    yield from (f"{sentence}." for sentence in cutshort.sentences(result))
    for digest, what in (("image_digest", "image"), ("page_digest", "page")):
        yield from _same(
            what, {one.texts[digest] for one in result.samples if one.kind == "start" and one.texts.get(digest)}
        )
    yield from failed(result)


def failed(result: Result) -> Iterator[str]:
    """Yield why samples failed: the first ones of each kind in each mode. The report lists all of them."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in result.samples:
        if one.error is None:
            continue
        counts[one.kind, one.mode] += 1
        if counts[one.kind, one.mode] <= SHOWN_FAILURES:
            name = " ".join(filter(None, (one.kind, one.mode)))
            when = f"round {one.round}" if one.round > 0 else "warming up"
            yield f"Failed, {name}, {when}: {(one.error.splitlines() or ['no reason'])[0]}"
    for (kind, mode), count in counts.items():
        if count > SHOWN_FAILURES:
            name = " ".join(filter(None, (kind, mode)))
            yield f"Failed, {name}: {count - SHOWN_FAILURES} more; report.md lists all of them."


def _same(what: str, digests: set[str]) -> Iterator[str]:
    if len(digests) == 1:
        yield f"The {what} is the same in every mode: {digests.pop()}."
    elif digests:
        yield f"The {what} differs between modes: {', '.join(sorted(digests))}."
