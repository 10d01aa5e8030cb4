"""The results of one workload, oldest first, and how each changed from the one before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench import compare, questions
from bench.model import Figure, Result
from bench.questions import Question
from bench.result import NAME, read
from vmctl import paths
from vmctl.errors import SpecError, VmctlError


class Found(NamedTuple):
    """The results in some folders, oldest first, and the files that could not be read, with the reason."""

    results: tuple[tuple[str, Result], ...]  # path and result
    damaged: tuple[str, ...]


class Entry(NamedTuple):
    """One headline figure of one result, and its change from the last comparable result before it."""

    path: str
    created: float  # seconds since the epoch
    workload: str
    host: str | None  # its id
    accelerator: str
    key: str
    title: str
    unit: str
    mode: str
    value: float
    change: float | None  # this value divided by the one before
    low: float | None  # 95 %
    high: float | None
    verdict: str  # of the change, "" without one


def root() -> str:
    """Return the folder of the results that were measured without --out."""
    return os.path.join(paths.state_root(), "bench")


def find(folders: Sequence[str] = ()) -> Found:
    """Return the results that vmctl keeps, and those in some folders and their subfolders.

    Copies of the same result count once. Raises SpecError for a folder that does not exist.
    """
    for folder in folders:
        if not os.path.isdir(folder):
            raise SpecError(f"the folder {folder} does not exist", hint="`vmctl bench history [SPEC|NAME] [FOLDER...]`")
    results: dict[str, tuple[str, Result]] = {}
    damaged: list[str] = []
    for path in sorted({path for folder in (root(), *folders) for path in _files(folder)}):
        try:
            result = read(path)
        except VmctlError as error:
            damaged.append(str(error))
        else:
            results.setdefault(result.id, (path, result))
    return Found(tuple(sorted(results.values(), key=lambda found: (found[1].created, found[0]))), tuple(damaged))


def entries(results: Sequence[tuple[str, Result]], name: str = "") -> list[Entry]:
    """Return the headline figures of workloads with that name, or of all workloads, one figure after the other."""
    mine = [one for one in results if name in ("", named(one[1]))]
    keys = {(named(one), question.key): question for _, one in mine for question in _headlines(one)}
    found: list[Entry] = []
    for workload, key in sorted(keys, key=lambda pair: pair[0]):
        series = [one for one in mine if named(one[1]) == workload]
        for mode in dict.fromkeys(mode for _, one in series for mode in one.plan.modes):
            found += _trend(series, keys[workload, key], mode)
    return found


def named(result: Result) -> str:
    """Return the name of the workload that was measured."""
    return str(result.plan.workload.get("name", "?"))


def _trend(series: Sequence[tuple[str, Result]], question: Question, mode: str) -> list[Entry]:
    found, before = [], list[Result]()
    for path, result in series:
        figure = _figure(result, question.key, mode)
        if figure is None or figure.value is None:
            continue
        earlier = next((one for one in reversed(before) if comparable(one, result)), None)
        found.append(_entry(path, result, question, figure, earlier))
        before.append(result)
    return found


def comparable(before: Result, after: Result) -> bool:
    """Return whether two results have the same workload, host and accelerators, and are both warm or both cold."""
    return next(compare.unlike(before, after), None) is None


def _entry(path: str, result: Result, question: Question, figure: Figure, earlier: Result | None) -> Entry:
    change = None if earlier is None else compare.change(earlier, result, question, figure.mode)
    changed: dict[str, Any] = {"change": None, "low": None, "high": None, "verdict": ""}
    if change is not None:
        changed = {"change": change.ratio, "low": change.low, "high": change.high, "verdict": change.verdict}
    return Entry(
        path=path,
        created=result.created,
        workload=named(result),
        host=result.host.get("id"),
        accelerator=result.accelerator(figure.mode),
        key=question.key,
        title=question.title.strip(),
        unit=question.unit,
        mode=figure.mode,
        value=figure.value or 0.0,
        **changed,
    )


def _headlines(result: Result) -> list[Question]:
    pairs = questions.of(result.plan)
    return [question for _, question in pairs if question.headline]


def _figure(result: Result, key: str, mode: str) -> Figure | None:
    return next((one for one in result.figures if (one.key, one.mode) == (key, mode)), None)


def _files(folder: str) -> list[str]:
    """Return the paths of the results in a folder and in its direct subfolders."""
    try:
        inside = sorted(os.listdir(folder))
    except OSError:  # nothing has been measured yet, or this user may not read the folder
        return []
    candidates = [os.path.join(folder, NAME), *(os.path.join(folder, name, NAME) for name in inside)]
    return [os.path.realpath(path) for path in candidates if os.path.isfile(path)]
