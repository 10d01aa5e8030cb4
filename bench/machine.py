"""What the control shows about the machine: how steady it was during the measurement.

Steady is not idle: a machine that is always equally busy is slow and steady.
"""

from __future__ import annotations

from bench import equal
from bench.formatting import quantity
from bench.model import CONTROL, Figure, Result
from bench.questions import Question, questions
from bench.statistics import ENOUGH_POINTS, TO_SIGMA, median

# the control's scaled MAD as a share of its median
STEADY_SHARE = 0.05  # with such a scatter, 30 rounds determine the median to 2.2 %
UNSTEADY_SHARE = 0.15
BUSY_SHARE = 0.25  # of the control's time; on an idle host it waits a few percent: a fork, an exec, a page fault
STRAY_SHARE = 0.2  # above this share of the rounds, outliers are the rule


def question() -> Question:
    """Return the question that the control answers."""
    (found,) = questions(CONTROL)
    return found


def figure(result: Result) -> Figure | None:
    """Return the control's figure, None if the result has none because it is old or was planned without a control."""
    return next((one for one in result.figures if one.key == question().key), None)


def scatter_share(one: Figure) -> float | None:
    """Return the scaled MAD as a share of the median, None if nothing was observed."""
    return TO_SIGMA * one.mad / one.value if one.value and one.mad is not None else None


def first(result: Result) -> list[str]:
    """Return what has to be known before any figure is read: a busy host, and the resources of the modes."""
    return list(filter(None, [busy(result), equal.sentence(result)]))


def busy(result: Result) -> str:
    """Return a warning if other programs wanted to run on the processors, else "".

    Either more processes than processors wanted to run when the measurement began, or the control had to wait.
    """
    load, cpus = result.host.get("load_average"), result.host.get("cpus")
    meant = "so times and memory are also those of other programs"
    if isinstance(load, list) and load and isinstance(cpus, int) and load[0] > cpus:
        began = "when the measurement began"
        return f"The host was busy: its load was {load[0]:.1f} on {cpus} processors {began}, {meant}."
    share = _waited_share(result)
    if share is not None and share > BUSY_SHARE:
        return f"The host was busy: the control waited {share:.0%} of its time for a processor, {meant}."
    return ""


def _waited_share(result: Result) -> float | None:
    """Return the share of its time that the control did not run (median), None for a result without that time."""
    shares = [
        max(0.0, 1 - one.values["cpu_s"] / one.values["work_s"])
        for one in result.of(CONTROL, "")
        if one.counts and "cpu_s" in one.values and one.values.get("work_s", 0.0) > 0
    ]
    return median(shares) if shares else None


def sentence(result: Result) -> str:
    """Return how long the control took, how that scattered, and what it means; "" for a result without its figure."""
    one = figure(result)
    if one is None:
        return ""
    share = scatter_share(one)
    if share is None:
        return f"The control, the same work as a plain process in every round, was not observed: {one.why}."
    took = f"The control, the same work as a plain process in every round, took {quantity(one.value, one.unit)}"
    failed = f", {one.failures} failed" * bool(one.failures)
    if one.observations < ENOUGH_POINTS:
        few = f"fewer than {ENOUGH_POINTS} rounds do not show how steady the machine was"
        return f"{took} (median of {one.observations}{failed}): {few}."
    scatter = f"scaled MAD {share * 100:.2g} %, {one.outliers} outliers in {one.observations} rounds{failed}"
    return f"{took} (median; {scatter}): {_judged(one, share)}."


def _judged(one: Figure, share: float) -> str:
    stray = one.outliers / one.observations
    if share > UNSTEADY_SHARE or stray > STRAY_SHARE:
        return "the machine was not steady and may have caused small differences between the modes"
    if share > STEADY_SHARE:
        return "the machine was not quite steady, so small differences between the modes need many rounds"
    return "the machine was steady"
