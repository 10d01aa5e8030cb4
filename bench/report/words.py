"""What a result says, in sentences: one per question, and no more than its figures and verdicts bear."""

from __future__ import annotations

from collections.abc import Iterator

from bench import cutshort, questions, table
from bench.formatting import quantity
from bench.model import Figure, Ratio, Result
from bench.questions import Question
from bench.statistics import ENOUGH
from vmctl.units import format_size

# mode -> how it is called in a heading and in a sentence; one that is not here is called by its name
NAMES = {"vm": "VM", "": "control"}  # the control has no mode
NOUNS = {"host": "a plain process", "container": "a container", "vm": "a VM"}
_EMULATED = {"tcg": "TCG, emulated"}
# unit -> how a difference is said when it is more, when it is less, and what a multiple is of
_WORDS = {"s": ("longer", "shorter", "long"), "count": ("more", "fewer", "many")}
_USUAL = ("more", "less", "much")
# question -> what a mode does; for others there is a colon
_DOES = {
    "boot.answer_s": " answers after",
    "boot.output_s": " gives its first output after",
    "net.service_s": " answers a request after",
    "memory.marginal_bytes": ": one more costs",
    "disk.marginal_bytes": ": one more takes",
    "teardown.removal_s": " is gone after",
}
_COUNTED = {"net.service_s": "request", "net.latency_s": "request"}  # what is observed many times in a run
_TIMES = 2.0  # from here on "3.4 times" is said, not "240 %"


def asked(result: Result) -> list[tuple[str, Question]]:
    """Return (kind, question) for everything this result was asked."""
    return questions.of(result.plan)


def headlines(result: Result) -> list[tuple[str, Question]]:
    """Return those questions that get a sentence and a chart."""
    return [pair for pair in asked(result) if pair[1].headline]


def heading(result: Result, question: Question) -> str:
    """Return a question's title where it stands alone: a part of another question with the beginning of that one."""
    if not question.title.startswith(" "):
        return _capital(question.title)
    whole = ""
    for _, one in asked(result):
        if one.key == question.key:
            break
        whole = whole if one.title.startswith(" ") else one.title
    return _capital(f"{whole.partition(':')[0]}: {question.title.strip()}")


def figure(result: Result, key: str, mode: str) -> Figure | None:
    """Return the figure that answers a question for a mode."""
    return next((one for one in result.figures if (one.key, one.mode) == (key, mode)), None)


def label(result: Result, mode: str) -> str:
    """Return a mode as a column or an axis names it, with what ran a guest's code: "VM (TCG, emulated)"."""
    return f"{NAMES.get(mode, mode)}{_accelerator(result, mode)}"


def noun(result: Result, mode: str) -> str:
    """Return a mode as a sentence names it: "a VM (TCG, emulated)"."""
    return f"{NOUNS.get(mode, mode)}{_accelerator(result, mode)}"


def _accelerator(result: Result, mode: str) -> str:
    name = result.accelerator(mode)
    return f" ({_EMULATED.get(name, name.upper())})" if name else ""


def emulated(result: Result) -> bool:
    """Return whether a guest's instructions were translated by software."""
    return any(one.texts.get("accelerator") in _EMULATED for one in result.samples)


def title(result: Result) -> str:
    """Return a heading for the whole: what was measured, in which modes."""
    nouns = [noun(result, mode) for mode in result.plan.modes]
    listed = f"{', '.join(nouns[:-1])} and {nouns[-1]}" if len(nouns) > 1 else "".join(nouns)
    return f"{result.plan.workload.get('name', 'workload')} as {listed}"


def host(result: Result) -> str:
    """Return the host in a line."""
    facts = result.host
    memory = facts.get("memory_bytes")
    parts = [facts.get("cpu") or "unknown CPU", f"{facts.get('cpus', '?')} CPUs"]
    parts += [format_size(memory)] if isinstance(memory, (int, float)) else []
    parts += [f"Linux {str(facts.get('kernel', '?')).partition(' #')[0]}", f"vmctl {facts.get('vmctl', '?')}"]
    guest = "itself a virtual machine" if facts.get("under_a_hypervisor") else ""
    return ", ".join([str(part) for part in parts] + [guest] * bool(guest))


def notes(result: Result) -> Iterator[str]:
    """Yield what has to be known to read the figures."""
    failures = set(table.failed(result))  # the page has a table of all of them
    yield from (one for one in table.notes(result) if one not in failures)
    outliers = sum(one.outliers for one in result.figures)
    yield f"{outliers} observations lie far out; they are flagged, and none is taken out."
    yield (
        "Times are read from the host's monotonic clock, a guest's too; only a guest's port is asked, every "
        "millisecond."
    )


def sentences(result: Result, question: Question) -> list[str]:
    """Return the answer to a headline question: each mode beside the first, and what failed."""
    known = [one for mode in result.plan.modes if (one := figure(result, question.key, mode)) and one.value is not None]
    found = [_alone(result, question, known[0])] if known else []
    for one in known[1:]:
        ratio = next(
            (r for r in result.ratios if (r.key, r.mode, r.base) == (question.key, one.mode, known[0].mode)), None
        )
        found.append(_beside(result, question, one, known[0], ratio))
    return [*found, *_lacking(result, question), *_cut_short(result, question)]


def _alone(result: Result, question: Question, one: Figure) -> str:
    certain = f"{_enough(question, one)}." if one.low is None or one.high is None else f"{_range(one)}."
    who, value = _does(result, question, one.mode), quantity(one.value, one.unit)
    return f"{who} {value} ({_statistic(question)}); {_count(question, one)}, {certain}"


def _beside(result: Result, question: Question, one: Figure, base: Figure, ratio: Ratio | None) -> str:
    """Return one mode held against the first, in the words that the verdict allows."""
    who, other = _does(result, question, one.mode), noun(result, base.mode)
    value = quantity(one.value, one.unit)
    if ratio is None:
        return f"{who} {value}. It cannot be divided by what {other} has."
    between = "" if ratio.low is None or ratio.high is None else _times_between(one, ratio)
    said = {
        "more": _difference(one, base, ratio, other),
        "less": _difference(one, base, ratio, other),
        "equal": f"the same as {other} within 3 %",
        "small": f"a difference to {other} that is there, but below 3 %",
        "undecided": f"no difference to {other} is shown, nor that there is none",
        "few": f"{_multiple(one, ratio)} as {other}, from too few rounds to tell a difference",
        "invalid": f"better than {other}, so this is not valid: cache or durability differs",
    }[ratio.verdict]
    return f"{who} {value}, {said}{f'; {_count(question, one)}, {between}' if between else ''}."


def _difference(one: Figure, base: Figure, ratio: Ratio, other: str) -> str:
    """Return "1.5 ms (12 %) longer than a plain process", "2.9 s longer than ... (240 times as long)"."""
    difference = (one.value or 0.0) - (base.value or 0.0)
    more, less, _ = _WORDS.get(one.unit, _USUAL)
    text, word = quantity(abs(difference), one.unit), more if difference > 0 else less
    if ratio.ratio >= _TIMES:
        return f"{text} {word} than {other} ({_multiple(one, ratio)})"
    return f"{text} ({abs(ratio.ratio - 1) * 100:.0f} %) {word} than {other}"


def _multiple(one: Figure, ratio: Ratio) -> str:
    """Return "240 times as long", "as much" for a ratio that three digits do not tell from 1."""
    word, times = _WORDS.get(one.unit, _USUAL)[2], f"{ratio.ratio:.3g}"
    return f"as {word}" if times == "1" else f"{times} times as {word}"


def _times_between(one: Figure, ratio: Ratio) -> str:
    return f"95 % interval {ratio.low:.3g} to {ratio.high:.3g} times as {_WORDS.get(one.unit, _USUAL)[2]}"


def _does(result: Result, question: Question, mode: str) -> str:
    return _capital(f"{noun(result, mode)}{_DOES.get(question.key, ':')}")


def _range(one: Figure) -> str:
    return f"95 % interval {quantity(one.low, one.unit)} to {quantity(one.high, one.unit)}"


def _enough(question: Question, one: Figure) -> str:
    if question.statistic == "median" and one.observations < ENOUGH:
        return f"fewer than {ENOUGH}, so no interval"
    return one.why or "no interval"


def _count(question: Question, one: Figure) -> str:
    what = "point" if question.statistic == "slope" else _COUNTED.get(question.key, "run")
    return f"{one.observations} {what}{'s' * (one.observations != 1)}"


def _statistic(question: Question) -> str:
    return {"slope": "slope, for each instance more"}.get(question.statistic, question.statistic)


def _lacking(result: Result, question: Question) -> Iterator[str]:
    """Yield what is not known: modes without an answer, and runs that failed."""
    for mode in result.plan.modes:
        one, who = figure(result, question.key, mode), _capital(noun(result, mode))
        if one is None or one.value is None:
            yield f"{who}: no answer ({one.why.splitlines()[0] if one and one.why else 'not measured'})."
        elif one.failures:
            yield f"{who}: {one.failures} run{'s' * (one.failures != 1)} failed and had no part in it."


def _cut_short(result: Result, question: Question) -> Iterator[str]:
    """Yield which slopes are of fewer instances than were asked for, and why."""
    for mode in result.plan.modes:
        if why := cutshort.remark(result, question, mode):
            yield f"{_capital(noun(result, mode))}: {why}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
