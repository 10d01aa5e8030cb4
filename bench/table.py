"""A comparison as text: one column per mode, one row per question, and below it what has to be known to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from bench.comparison import Comparison
from bench.sample import Sample
from bench.statistics import ENOUGH, median_interval
from bench.worker import CODE
from vmctl.units import format_seconds, format_size

UNKNOWN = "-"
PAGE_CHARACTERS = 28


class Row(NamedTuple):
    """One question and what is known of it, mode by mode."""

    label: str
    cells: tuple[str, ...]


def titles(comparison: Comparison) -> list[str]:
    """Return the columns' names: each mode, and how a guest's code was run."""
    return [_title(mode, comparison.look(mode)) for mode in comparison.modes]


def rows(comparison: Comparison) -> list[Row]:
    """Return the table."""
    counted = [comparison.of(mode) for mode in comparison.modes]
    looks = [comparison.look(mode) for mode in comparison.modes]
    last = _answers(looks) if comparison.work.ready else _codes(counted)
    sizes = _sizes(counted) if comparison.work.ready else ()
    return [*_times(comparison, counted), *sizes, _counts(counted), *last]


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield the sentences that belong to the table."""
    yield f"Medians of {comparison.runs} runs per mode, in random order (seed {comparison.seed}), after one discarded."
    if comparison.runs < ENOUGH:
        yield f"Fewer than {ENOUGH} runs: no interval is given, and small differences mean nothing."
    if comparison.work.ready:
        yield "Memory is read half a second after the first answer. Shared disk is there once, whatever runs from it."
    if any(sample.accelerator == "tcg" for sample in comparison.samples):
        yield "TCG: the guest's instructions were translated by software. With KVM its times would be very different."
    yield from (f"{mode} was left out: {reason}" for mode, reason in comparison.missing.items())
    yield from _agreement(comparison)
    for sample in comparison.samples:
        if sample.error:
            yield f"Failed, {sample.mode}, round {sample.round}: {sample.error.splitlines()[0]}"


def _title(mode: str, sample: Sample) -> str:
    return f"{mode} ({sample.accelerator})" if sample.accelerator else mode


def _times(comparison: Comparison, counted: Sequence[list[Sample]]) -> Iterator[Row]:
    last, what = ("T6", "answer") if comparison.work.ready else ("T5", "output")
    yield _between(f"start to first {what}", counted, "T0", last)
    yield from _spread(counted, last)
    yield _between("  to the process", counted, "T0", "T1")
    yield _between("  on to our init", counted, "T1", "T4")
    yield _between(f"  on to the first {what}", counted, "T4", last)
    yield _between("removal", counted, "T7", "T9")


def _between(label: str, counted: Sequence[list[Sample]], first: str, last: str) -> Row:
    """Return a phase. After clone3 parent and child race: T4 can be some microseconds before T1."""
    return Row(
        label, _medians(counted, lambda sample: sample.between_s(first, last), lambda s: format_seconds(max(0, s)))
    )


def _spread(counted: Sequence[list[Sample]], last: str) -> Iterator[Row]:
    values = [_known(samples, lambda sample: sample.between_s("T0", last)) for samples in counted]
    yield Row("  fastest", tuple(format_seconds(min(found)) if found else UNKNOWN for found in values))
    if any(len(found) >= ENOUGH for found in values):
        intervals = map(median_interval, values)
        texts = (f"{format_seconds(i.low)} to {format_seconds(i.high)}" if i else UNKNOWN for i in intervals)
        yield Row("  95 % interval", tuple(texts))


def _sizes(counted: Sequence[list[Sample]]) -> Iterator[Row]:
    yield Row("memory, PSS", _medians(counted, lambda sample: sample.pss_bytes, format_size))
    yield Row("memory, cgroup", _medians(counted, lambda sample: sample.cgroup_bytes, format_size))
    yield Row("disk, its own", _medians(counted, lambda sample: sample.disk_bytes, format_size))
    yield Row("disk, shared", _medians(counted, lambda sample: sample.shared_disk_bytes, format_size))


def _counts(counted: Sequence[list[Sample]]) -> Row:
    good = [sum(sample.error is None for sample in samples) for samples in counted]
    texts = (f"{n}" if n == len(all_) else f"{n} of {len(all_)}" for n, all_ in zip(good, counted, strict=True))
    return Row("runs", tuple(texts))


def _answers(looks: Sequence[Sample]) -> Iterator[Row]:
    answers = [look.answer for look in looks]
    if any(answer and answer.page is not None for answer in answers):
        yield Row("its page", tuple(_shortened(answer.page) if answer else UNKNOWN for answer in answers))
    yield Row("uname -r", tuple((answer and answer.kernel) or UNKNOWN for answer in answers))
    codes = (UNKNOWN if answer is None else str(answer.exit_code) for answer in answers)
    yield Row(f"code of `exit {CODE}`", tuple(codes))


def _codes(counted: Sequence[list[Sample]]) -> Iterator[Row]:
    codes = [sorted({sample.exit_code for sample in samples if sample.exit_code is not None}) for samples in counted]
    yield Row("exit code", tuple(", ".join(map(str, found)) or UNKNOWN for found in codes))


def _shortened(page: str | None) -> str:
    if page is None:
        return UNKNOWN
    line = (page.splitlines() or [""])[0]
    return line if len(line) <= PAGE_CHARACTERS else line[: PAGE_CHARACTERS - 3] + "..."


def _agreement(comparison: Comparison) -> Iterator[str]:
    """Say whether the modes ran the same bytes and gave the same answer."""
    good = [sample for sample in comparison.samples if not sample.error]
    yield _same("image", {sample.image_digest for sample in good})
    pages = {sample.answer.page_digest for sample in good if sample.answer}
    if pages - {None}:
        yield _same("page", pages)


def _same(what: str, digests: set[str | None]) -> str:
    known = sorted(filter(None, digests))
    if len(known) == 1:
        return f"The {what} is the same in every mode: {known[0]}."
    return f"The {what} differs between modes: {', '.join(known)}." if known else f"No {what} was seen."


def _medians(
    counted: Sequence[list[Sample]],
    value: Callable[[Sample], float | None],
    text: Callable[[float], str],
) -> tuple[str, ...]:
    values = (_known(samples, value) for samples in counted)
    return tuple(text(median(found)) if found else UNKNOWN for found in values)


def _known(samples: Sequence[Sample], value: Callable[[Sample], float | None]) -> list[float]:
    found = (value(sample) for sample in samples)
    return [number for number in found if number is not None]
