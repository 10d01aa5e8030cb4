"""Instances of the user's workload, started one after the other and then all removed: what one more costs the host.

The slope against their number is the cost of one more instance, including its kernel. The first one pays for what all
share. Other work on the host adds noise, not slope.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from statistics import median

from bench.model import Sample
from bench.probes import Request, Seen, crowd, tool
from bench.questions import Question, value
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.instances import instance
from vmctl.spec.workload import Workload

ROUNDS = 2
PERIOD_S = 0.05
WINDOW = 6  # readings, 0.3 s
FLAT_BYTES = 256 * 1024  # memory is flat when the medians of two windows in a row differ by less
SETTLE_S = 3.0  # at most; then the last median counts, and a text of the sample mentions it

_FLAT = (
    f"MemAvailable (proc(5), meminfo), the median of {WINDOW} readings in {WINDOW * PERIOD_S:g} s once two medians "
    f"differ by less than 256 KiB, and after {SETTLE_S:g} s in any case"
)


def _points(name: str, first: int) -> Callable[[Sample], Sequence[tuple[float, float]]]:
    """Return a `Question.points` that returns a series whose first value belongs to `first` instances."""
    return lambda sample: [(number, each) for number, each in enumerate(sample.series.get(name, []), first)]


def _taken(sample: Sample) -> Sequence[tuple[float, float]]:
    """Return the host's memory in bytes that each number of instances has taken, compared with no instance."""
    available = sample.series.get("available_bytes", [])
    return [(number, available[0] - each) for number, each in enumerate(available)]


QUESTIONS = (
    Question(
        "memory.marginal_bytes",
        "memory for one more instance",
        "bytes",
        points=_taken,
        statistic="slope",
        marginal=True,
        headline=True,
        meaning=f"Slope of the host's memory taken against the number of instances: {_FLAT}.",
    ),
    Question(
        "disk.marginal_bytes",
        "disk for one more instance",
        "bytes",
        points=_points("disk_bytes", 0),
        statistic="slope",
        marginal=True,
        headline=True,
        meaning="Slope of allocated bytes (st_blocks * 512, after sync) against the number of instances. Shared files "
        "count once, by device and inode, also for 0 instances.",
    ),
    Question(
        "density.instances_count",
        "instances at once",
        "count",
        value("instances"),
        less_is_better=False,
        meaning="Instances that ran at the same time until the planned number, a lack of memory, or an error stopped "
        f"the measurement; {crowd.RESERVE_SHARE:.0%} of the host's memory stays free.",
    ),
    Question(
        "density.start_s",
        "start of the last one",
        "s",
        value("last_start_s"),
        headline=True,
        meaning="T0 to ready (T6, or T5 for a workload without `ready`) of the last one, while all others run.",
    ),
    Question(
        "density.start_slope_s",
        "  more than the one before",
        "s",
        points=_points("start_s", 1),
        statistic="slope",
        meaning="Slope of the seconds from T0 to ready against the number of running instances.",
    ),
)


def prepare(work: Workload) -> Workload:
    """Return the workload without its published ports."""
    return crowd.without_ports(work)


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return crowd.SPARE_S + instances * (crowd.start_limit_s(work) + SETTLE_S)


def observe(request: Request) -> Seen:
    """Start one instance after the other and measure the host after each. If one cannot start, a text has the reason.

    Raises VmctlError if the first one cannot be measured, or if one ran elsewhere than its mode promises.
    """
    names = crowd.names(request)
    ladder = Ladder(request)
    with crowd.removed(names):
        for name in names:
            ladder.texts.update(_reason(ladder, request.work, name))
            if "stopped" in ladder.texts:
                break
        ladder.texts.update(tool.ran_all(ladder.names))
    if not ladder.names:
        raise VmctlError(ladder.texts["stopped"])
    return ladder.seen()


class Ladder:
    """The instances so far, and the host's memory and disk after each."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.backend = request.backend()
        self.names: list[str] = []
        self.start_s: list[float] = []
        self.disk_bytes: list[float] = []
        self.texts: dict[str, str] = {}
        self.available_bytes: list[float] = []
        self._note_memory()

    def add(self, work: Workload) -> None:
        """Start one more instance, wait until the host's memory is flat, and record memory and disk."""
        started = crowd.start(work, self.request.mode, self.request.options)
        self._note_memory(started.name)
        self.names.append(started.name)
        self._note_disk()
        if (took_s := started.start_s()) is not None:
            self.start_s.append(took_s)

    def too_little_left(self) -> str:
        """Return why one more instance like the last one would take too much memory, "" if it would not."""
        last = self.available_bytes[-2] - self.available_bytes[-1] if self.names else 0.0
        return crowd.host_memory().left_by(max(0.0, last))

    def seen(self) -> Seen:
        """Return the sample. If a start time is missing, the series of starts is absent, since its positions count."""
        values = {"instances": float(len(self.names))}
        series = {"available_bytes": self.available_bytes, "disk_bytes": self.disk_bytes}
        if len(self.start_s) == len(self.names):
            series["start_s"] = self.start_s
            values["last_start_s"] = self.start_s[-1]
        return Seen({}, values, series, self.texts)

    def _note_memory(self, name: str = "") -> None:
        available, flat = settled_bytes()
        if name:
            self._refuse_ended([*self.names, name])
        if not flat:
            self.texts["not_flat"] = f"{self.texts.get('not_flat', '')} {len(self.available_bytes)}".strip()
        self.available_bytes.append(available)

    def _refuse_ended(self, names: Sequence[str]) -> None:
        """Raise VmctlError if one has ended: the memory would then not be that of so many instances."""
        gone = [name for name in names if not crowd.running(name, self.backend)]
        if gone:
            raise VmctlError(f"{', '.join(gone)} has ended: this metric needs a workload that keeps running")

    def _note_disk(self) -> None:
        os.sync()
        found = [footprint(instance.load(name)) for name in self.names]
        files = [os.stat(path) for one in found for path in one.shared_files]
        shared = {(status.st_dev, status.st_ino): status.st_blocks * 512 for status in files}
        at_rest = float(sum(shared.values()))
        self.disk_bytes = self.disk_bytes or [at_rest]  # without an instance the shared files exist, too
        self.disk_bytes.append(at_rest + sum(one.disk_bytes for one in found))


def _reason(ladder: Ladder, work: Workload, name: str) -> dict[str, str]:
    """Add an instance; return {"stopped": why} if that is not possible, else {}."""
    why = (crowd.only_once(work, ladder.backend) if ladder.names else "") or ladder.too_little_left()
    if not why:
        try:
            ladder.add(work._replace(name=name))
            return {}
        except VmctlError as error:
            why = " ".join(filter(None, [str(error), error.detail]))
    return {"stopped": f"before instance {len(ladder.names) + 1}: {why}"}


def settled_bytes() -> tuple[float, bool]:
    """Return the host's MemAvailable in bytes once it is flat, and whether it became flat within SETTLE_S seconds."""
    deadline_s = time.monotonic() + SETTLE_S
    before = _window()
    while True:
        now = _window()
        if abs(now - before) < FLAT_BYTES:
            return now, True
        if time.monotonic() > deadline_s:
            return now, False
        before = now


def _window() -> float:
    readings = []
    for _ in range(WINDOW):
        time.sleep(PERIOD_S)
        readings.append(crowd.host_memory().available)
    return float(median(readings))
