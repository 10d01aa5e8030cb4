"""Check a result: compute every figure and ratio again from its raw samples, and compare the samples with the plan.

Each contradiction is reported as a sentence. A result that was edited does not pass.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from bench import export, questions, summary
from bench.model import CONTROL, FORMAT, WITHOUT_CONTROL, Figure, Ratio, Result, Sample, Step
from bench.questions import KINDS, METRICS
from bench.report import page
from bench.result import content
from bench.session import SAMPLES
from vmctl import __version__

TOLERANCE = 1e-9  # relative: the last digits may depend on the processor and on numpy's version
# Marks in the order of time.
_ORDERS = (("T0", "T1", "T4", "T5"), ("T0", "T1", "T4", "T6", "T7", "T8", "T9"))


def verify(result: Result) -> list[str]:
    """Return what is wrong with a result, in sentences; an empty list if the samples confirm every number."""
    unknown = list(_unknown(result))
    if unknown:  # its figures cannot be computed
        return unknown
    return [*_steps(result), *_marks(result), *_impossible(result), *_numbers(result)]


def verify_samples(result: Result, folder: str) -> list[str]:
    """Return whether the samples are not those that were written when they were taken, in sentences.

    They are in `samples.jsonl` next to the result. Who edits a sample and computes all figures again has to edit both.
    """
    path = os.path.join(folder, SAMPLES)
    if not os.path.lexists(path):
        return []
    try:
        kept = [msgspec.json.decode(line, type=Sample) for line in content(path).splitlines()]
    except OSError as error:
        return [f"{SAMPLES} cannot be read: {error.strerror}"]
    except (msgspec.MsgspecError, RecursionError) as error:
        return [f"{SAMPLES} is damaged: {error}"]
    wrong = [
        f"{_name(*_step(one))} is not the sample in {SAMPLES}"
        for one, other in zip(result.samples, kept, strict=False)
        if one != other
    ]
    if len(kept) != len(result.samples):
        wrong.append(f"{SAMPLES} has {len(kept)} samples, the result has {len(result.samples)}")
    return wrong


def verify_reports(result: Result, folder: str) -> list[str]:
    """Return which reports in a folder do not match the result, in sentences. Missing reports are fine.

    Each report is generated again and compared without its charts, which depend on the version of matplotlib. Reports
    of another version of vmctl are not checked, since their texts may differ.
    """
    if result.host.get("vmctl") != __version__:
        return []
    wrong = []
    for name, write in (("report.md", export.markdown), ("report.html", page.page)):
        path = os.path.join(folder, name)
        if not os.path.lexists(path):
            continue
        try:
            found = content(path).decode(errors="replace")
        except OSError as error:
            wrong.append(f"{name} cannot be read: {error.strerror}")
            continue
        if _without_charts(found) != _without_charts(write(result)):
            wrong.append(f"{name} differs from what this version of vmctl writes for this result")
    return wrong


def _without_charts(text: str) -> str:
    return re.sub(r"<svg\b.*?</svg>", "", text, flags=re.DOTALL)


def _unknown(result: Result) -> Iterator[str]:
    """Yield names in the plan that this version does not know, and more rounds than the plan declares."""
    plan = result.plan
    for metric in plan.metrics:
        if metric not in METRICS:
            yield f"plan: the metric {metric} does not exist"
    for kind in sorted({step.kind for step in plan.steps} - {*KINDS, CONTROL}):
        yield f"plan: the kind of sample {kind} does not exist"
    for mode in sorted({step.mode for step in plan.steps} - {*plan.modes, ""}):
        yield f"plan: it has a step in mode {mode}, which is not one of its modes"
    rounds = max((step.round for step in plan.steps), default=0)
    if rounds > plan.runs:
        yield f"plan: it has {rounds} rounds but declares {plan.runs}"


def _steps(result: Result) -> Iterator[str]:
    """Yield differences between plan and samples: missing, unplanned or repeated samples, or another order."""
    planned, taken = list(map(_step, result.plan.steps)), list(map(_step, result.samples))
    wanted, found = Counter(planned), Counter(taken)
    yield from (f"plan: it has {_name(*step)} {count} times" for step, count in wanted.items() if count > 1)
    yield from (f"{_name(*step)} is in the plan but has no sample" for step in wanted if step not in found)
    yield from (f"{_name(*step)} has a sample but is not in the plan" for step in found if step not in wanted)
    yield from (f"{_name(*step)} was taken {count} times" for step, count in found.items() if count > 1)
    if wanted == found and planned != taken:
        first = next(step for step, other in zip(taken, planned, strict=True) if step != other)
        yield f"the samples are not in the order of the plan, beginning at {_name(*first)}"


def _marks(result: Result) -> Iterator[str]:
    """Yield marks that are in the wrong order of time."""
    for sample in result.samples:
        marks = sample.marks_ns
        if sample.kind == CONTROL:
            continue
        out_of_order = {
            (first, last)
            for order in _ORDERS
            for first, last in pairwise([name for name in order if name in marks])
            if marks[last] < marks[first] and (result.format == FORMAT or (first, last) != ("T1", "T4"))
        }
        for first, last in sorted(out_of_order):
            yield f"{_name(*_step(sample))}: {last} is {marks[first] - marks[last]} ns before {first}"


_NEVER_NEGATIVE = ("pss_", "cgroup_", "vmm_", "inside_", "disk_", "shared_", "work_s", "cpu_s", "instances")
_CPU_ERROR_S = 0.02  # the kernel may count the processor's time in ticks of 10 ms


def _impossible(result: Result) -> Iterator[str]:
    """Yield values that no host can give."""
    for sample in result.samples:
        where = _name(*_step(sample))
        for name, value in sample.values.items():
            if value < 0 and name.startswith(_NEVER_NEGATIVE):
                yield f"{where}: {name} is {value:g}, below 0"
        yield from (
            f"{where}: {name} is before the start of the clock" for name, at in sample.marks_ns.items() if at < 0
        )
        for name, values in sample.series.items():
            if min(values, default=0) < 0:
                yield f"{where}: {name} has a value below 0"
        if sample.values.get("cpu_s", 0.0) > sample.values.get("work_s", math.inf) + _CPU_ERROR_S:
            yield f"{where}: the control used more of one processor than the time it took"


def _numbers(result: Result) -> Iterator[str]:
    """Yield every figure and ratio that does not follow from the samples, is missing, or is given twice.

    In a result of an earlier format, what followed other rules then is not checked: outliers, the cost of one more
    instance, and ratios that mean nothing.
    """
    figures, ratios = summary.summarise(result.plan, result.samples)
    if result.format == WITHOUT_CONTROL:
        figures = tuple(one for one in figures if one.mode)
    earlier = result.format != FORMAT
    ignored = ("outliers",) if earlier else ()
    skipped = {question.key for _, question in questions.of(result.plan) if question.marginal and earlier}
    for what, computed, stated, identity in (
        ("figure", figures, result.figures, ("key", "mode")),
        ("ratio", ratios, result.ratios, ("key", "mode", "base")),
    ):
        ours, theirs = ([one for one in each if one.key not in skipped] for each in (computed, stated))
        if earlier and what == "ratio":  # some of them are not given any more
            known = {_identity(one, identity) for one in ours}
            theirs = [one for one in theirs if _identity(one, identity) in known]
        yield from _differences(what, ours, theirs, identity, ignored)


def _differences(
    what: str,
    computed: Sequence[Figure | Ratio],
    stated: Sequence[Figure | Ratio],
    identity: tuple[str, ...],
    ignored: Sequence[str] = (),
) -> Iterator[str]:
    ours = {_identity(one, identity): one for one in computed}
    theirs = {_identity(one, identity): one for one in stated}
    for name, count in Counter(_identity(one, identity) for one in stated).items():
        if count > 1:
            yield f"{what} {name} is given {count} times"
    yield from (f"{what} {name} is missing" for name in ours if name not in theirs)
    yield from (f"{what} {name} does not follow from the plan and the samples" for name in theirs if name not in ours)
    for name, one in ours.items():
        if name not in theirs:
            continue
        for field in one.__struct_fields__:
            right, given = getattr(one, field), getattr(theirs[name], field)
            if field not in ignored and not same(right, given):
                yield f"{what} {name}: {field} is given as {given!r}, the samples give {right!r}"


def same(first: Any, second: Any) -> bool:
    """Return whether two values are the same; numbers to nine digits."""
    if isinstance(first, int | float) and isinstance(second, int | float):
        return math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=0.0)
    return bool(first == second)


def _identity(one: Figure | Ratio, identity: tuple[str, ...]) -> str:
    return " ".join(getattr(one, name) for name in identity)


def _step(one: Sample | Step) -> tuple[str, str, int]:
    return one.kind, one.mode, one.round


def _name(kind: str, mode: str, number: int) -> str:
    return " ".join(filter(None, (f"round {number}:", kind, mode)))
