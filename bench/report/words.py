"""A result in sentences: one per question and mode, with no more certainty than the verdicts allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench import cutshort, questions, table
from bench.formatting import quantity
from bench.model import Figure, Ratio, Result
from bench.questions import Question
from bench.statistics import ENOUGH
from vmctl.spec.units import format_size

# mode -> its name in a heading, and its noun in a sentence; other modes appear by their name
NAMES = {"vm": "VM", "": "control"}  # the control has no mode
NOUNS = {"host": "a plain process", "container": "a container", "vm": "a VM"}
_EMULATED = {"tcg": "TCG, emulated"}
# unit -> the words for a positive difference, a negative one, and in "times as ..."
_WORDS = {"s": ("longer", "shorter", "long"), "count": ("more", "fewer", "many")}
_USUAL = ("more", "less", "much")
# question -> the words between a mode and its figure; a colon for other questions
_DOES = {
    "boot.answer_s": " answers after",
    "boot.output_s": " gives its first output after",
    "net.service_s": " answers a request after",
    "memory.marginal_bytes": ": one more costs",
    "disk.marginal_bytes": ": one more takes",
    "teardown.removal_s": " is removed after",
}
_COUNTED = {"net.service_s": "request", "net.latency_s": "request"}  # questions with many observations per run
_TIMES = 2.0  # from this ratio on the text is "3.4 times", not "240 %"


def asked(result: Result) -> list[tuple[str, Question]]:
    """Return (kind, question) for every question of this result."""
    return questions.of(result.plan)


def headlines(result: Result) -> list[tuple[str, Question]]:
    """Return (kind, question) for the questions with a sentence and a chart."""
    return [pair for pair in asked(result) if pair[1].headline]


def heading(result: Result, question: Question) -> str:
    """Return a question's title for a place without its context: a part of another question includes the latter's."""
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
    """Return a mode's name for a column or an axis, with the accelerator: "VM (TCG, emulated)"."""
    return f"{NAMES.get(mode, mode)}{_accelerator(result, mode)}"


def noun(result: Result, mode: str) -> str:
    """Return a mode's noun for a sentence, with the accelerator: "a VM (TCG, emulated)"."""
    return f"{NOUNS.get(mode, mode)}{_accelerator(result, mode)}"


def _accelerator(result: Result, mode: str) -> str:
    name = result.accelerator(mode)
    return f" ({_EMULATED.get(name, name.upper())})" if name else ""


def emulated(result: Result) -> bool:
    """Return whether a guest's instructions were translated by software."""
    return any(one.texts.get("accelerator") in _EMULATED for one in result.samples)


def title(result: Result) -> str:
    """Return a heading for the whole result: the workload and its modes."""
    nouns = [noun(result, mode) for mode in result.plan.modes]
    return f"{result.plan.workload.get('name', 'workload')} as {listed(nouns)}"


def listed(names: Sequence[str]) -> str:
    """Return names as a part of a sentence: `a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


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
    """Yield the notes needed to read the figures."""
    failures = set(table.failed(result))  # the page has a table of all of them
    yield from (one for one in table.notes(result) if one not in failures)
    outliers = sum(one.outliers for one in result.figures)
    yield f"{outliers} observations are outliers; they are counted and not removed."
    yield (
        "All times are read from the host's monotonic clock, also for guests. Events wake the host; only a guest's "
        "port is tried every millisecond."
    )


def sentences(result: Result, question: Question) -> list[str]:
    """Return the answer to a headline question: each mode compared with the first, and the failures."""
    known = [one for mode in result.plan.modes if (one := figure(result, question.key, mode)) and one.value is not None]
    found = [_alone(result, question, known[0])] if known else []
    for one in known[1:]:
        ratio = next(
            (r for r in result.ratios if (r.key, r.mode, r.base) == (question.key, one.mode, known[0].mode)), None
        )
        found.append(_compared(result, question, one, known[0], ratio))
    return [*found, *_lacking(result, question), *_cut_short(result, question)]


def _alone(result: Result, question: Question, one: Figure) -> str:
    certain = f"{_enough(question, one)}." if one.low is None or one.high is None else f"{_range(one)}."
    who, value = _does(result, question, one.mode), quantity(one.value, one.unit)
    return f"{who} {value} ({_statistic(question)}); {_count(question, one)}, {certain}"


def _compared(result: Result, question: Question, one: Figure, base: Figure, ratio: Ratio | None) -> str:
    """Return a sentence that compares one mode with the first, in the words that the verdict allows."""
    who, other = _does(result, question, one.mode), noun(result, base.mode)
    value = quantity(one.value, one.unit)
    if ratio is None:
        return f"{who} {value}. Its ratio to {other} cannot be computed."
    between = "" if ratio.low is None or ratio.high is None else _times_between(one, ratio)
    judged = {
        "more": _difference(one, base, ratio, other),
        "less": _difference(one, base, ratio, other),
        "equal": f"the same as {other} within 3 %",
        "small": f"different from {other}, but by less than 3 %",
        "undecided": f"neither a difference to {other} nor equality is shown",
        "few": _in_every_run(one, ratio, other),
        "invalid": f"better than {other}, so this is not valid: cache or durability differs",
    }[ratio.verdict]
    return f"{who} {value}, {judged}{f'; {_count(question, one)}, {between}' if between else ''}."


def _difference(one: Figure, base: Figure, ratio: Ratio, other: str) -> str:
    """Return "1.5 ms (12 %) longer than a plain process", "2.9 s longer than ... (240 times as long)"."""
    difference = (one.value or 0.0) - (base.value or 0.0)
    more, less, _ = _WORDS.get(one.unit, _USUAL)
    text, word = quantity(abs(difference), one.unit), more if difference > 0 else less
    if ratio.ratio >= _TIMES:
        return f"{text} {word} than {other} ({multiple(one, ratio)})"
    return f"{text} ({abs(ratio.ratio - 1) * 100:.0f} %) {word} than {other}"


def _in_every_run(one: Figure, ratio: Ratio, other: str) -> str:
    """Return what few runs show: whether each run of one mode differs from each run of the other."""
    more, less, _ = _WORDS.get(one.unit, _USUAL)
    if not separate(ratio):
        return f"from too few rounds to show a difference to {other}"
    count = f"{one.observations} of {one.observations} runs; fewer than {ENOUGH} rounds, so no interval"
    return f"each run {more if ratio.delta > 0 else less} than every run of {other}. {count}"


def separate(ratio: Ratio) -> bool:
    """Return whether each run of one mode differs from every run of the other in the same direction."""
    return abs(ratio.delta) == 1


def multiple(one: Figure, ratio: Ratio) -> str:
    """Return "240 times as long", or "as much" for a ratio that is 1 in three digits."""
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
    return {"slope": "slope, per additional instance"}.get(question.statistic, question.statistic)


def _lacking(result: Result, question: Question) -> Iterator[str]:
    """Yield a sentence for each mode without an answer or with failed runs."""
    for mode in result.plan.modes:
        one, who = figure(result, question.key, mode), _capital(noun(result, mode))
        if one is None or one.value is None:
            instead = _instead(result, question, mode)
            yield f"{who}: no answer ({one.why.splitlines()[0] if one and one.why else 'not measured'}).{instead}"
        elif one.failures:
            yield f"{who}: {one.failures} run{'s' * (one.failures != 1)} failed and did not count."


def _instead(result: Result, question: Question, mode: str) -> str:
    """Return what is known of the memory of one instance if the cost of one more is not, "" if nothing is."""
    if question.key != "memory.marginal_bytes":
        return ""
    found = [(figure(result, f"memory.{key}_bytes", mode), name) for key, name in _OF_ONE]
    known = [f"{quantity(one.value, one.unit)} ({name})" for one, name in found if one and one.value is not None]
    return f" One instance has {', '.join(known)}." if known else ""


_OF_ONE = (("pss", "its processes, PSS"), ("cgroup", "charged to its cgroup"))


def _cut_short(result: Result, question: Question) -> Iterator[str]:
    """Yield a sentence for each mode with a slope of fewer instances than planned, and why."""
    for mode in result.plan.modes:
        if why := cutshort.remark(result, question, mode):
            yield f"{_capital(noun(result, mode))}: {why}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
