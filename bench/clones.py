"""What a clone costs compared with a start: the same HTTP service, cold, from a template, and from a snapshot.

Measured are the seconds from the request to the first answer, a page of 2 MB right after it and once more (what was
never used since a restore is slower at first), and what the instance has charged to its control group and written to
its disk. Clones differ in what they come from: a small snapshot, one with much written to its disk, a guest with more
memory, one that is the tenth to run. All ways take turns in random order.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from statistics import median
from typing import Any, NamedTuple

from bench import folder, manifest
from bench.export import markdown_table
from vmctl import backends, engine
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.instances import published
from vmctl.instances.instance import Instance
from vmctl.programs import module, run
from vmctl.snapshots import cloning, record, taking
from vmctl.snapshots.record import Snapshot
from vmctl.spec.units import format_seconds, format_size
from vmctl.spec.workload import Bytes, HttpProbe, Port, Ready, Resources, VmOptions, Workload

FORMAT = "vmctl clones 1"
COLUMNS = ("what", "n", "first answer", "least", "most", "page", "page again", "memory", "disk")
MODES = ("container", "vm")
WRITTEN_MB, MORE_MEMORY, CROWD = 200, Bytes(512 << 20), 9
_PORT, _PAGE, _LIMIT_S = 8000, "/bin/busybox", 60.0

Progress = Callable[[str], None]
Start = Callable[[], Instance]


class Sample(NamedTuple):
    """One start."""

    way: str
    first_s: float  # from the request to the first answer
    page_s: float
    again_s: float
    memory_bytes: int | None
    disk_bytes: int | None


class Result(NamedTuple):
    """All samples, and the ways that failed with the reason."""

    samples: tuple[Sample, ...]
    failures: dict[str, str]
    runs: int
    seed: int
    host: dict[str, Any]

    def of(self, way: str) -> list[Sample]:
        """Return the samples of one way."""
        return [sample for sample in self.samples if sample.way == way]

    def ways(self) -> list[str]:
        """Return the ways that were measured, sorted: those of a mode are next to each other."""
        return sorted({sample.way for sample in self.samples})


def measure(runs: int, seed: int, progress: Progress, modes: Sequence[str] = MODES) -> Result:
    """Return the samples of `runs` rounds, after one that is discarded. Raises SpecError for an unknown mode."""
    for mode in modes:
        backends.options(mode)
    chance, samples, failures = random.Random(seed), [], {}
    with ExitStack() as stack:
        ways: dict[str, Start] = {}
        for mode in modes:
            progress(f"{mode}: snapshots")
            try:
                ways |= stack.enter_context(_ways(mode))
            except VmctlError as error:
                failures[mode] = str(error)
        for number in range(runs + 1):
            for name in chance.sample(sorted(ways), len(ways)):
                progress(f"round {number} of {runs}: {name}")
                try:
                    sample = _sample(name, ways[name])
                except VmctlError as error:
                    failures[name] = str(error)
                    continue
                samples += [sample] if number else []
    return Result(tuple(samples), failures, runs, seed, manifest.facts())


def _workload(**others: Any) -> Workload:
    return Workload(
        name=_name(),
        image="tiny",
        command=("httpd", "-f", "-p", str(_PORT), "-h", "/"),
        ports=(Port("127.0.0.1", 0, _PORT),),
        ready=Ready(http=HttpProbe(_PORT, "/etc/passwd")),
    )._replace(**others)


def _name() -> str:
    return f"bench-{os.urandom(4).hex()}"


@contextmanager
def _ways(mode: str) -> Iterator[dict[str, Start]]:
    """Yield the ways of a mode by name; the snapshots and the crowd are removed afterwards."""
    saved = VmOptions(warm="auto")  # a guest with a balloon cannot be saved while it runs; containers ignore it
    with ExitStack() as stack:
        small = stack.enter_context(_snapshot(mode, _workload(vm=saved)))
        large = stack.enter_context(_snapshot(mode, _workload(vm=saved), written_mb=WRITTEN_MB))
        wide = stack.enter_context(_snapshot(mode, _workload(vm=saved, resources=Resources(memory_bytes=MORE_MEMORY))))
        ways = {
            f"{mode}, cold": lambda: engine.up(_workload(), mode),
            f"{mode}, warm": lambda: engine.up(_workload(vm=saved), mode),
            f"{mode}, clone": lambda: _clone(small),
            f"{mode}, clone, {WRITTEN_MB} MB written before": lambda: _clone(large),
            f"{mode}, clone, 512 MiB of memory": lambda: _clone(wide),
            f"{mode}, clone, number {CROWD + 1}": lambda: _last_of_crowd(small),
        }
        if not small.process_state:  # then nothing is in memory that a start could begin with
            del ways[f"{mode}, warm"], ways[f"{mode}, clone, 512 MiB of memory"]
        yield ways


@contextmanager
def _snapshot(mode: str, work: Workload, written_mb: int = 0) -> Iterator[Snapshot]:
    inst = engine.up(work, mode)
    try:
        if written_mb:
            line = f"dd if=/dev/urandom of=/srv/written bs=1M count={written_mb} 2>/dev/null; sync"
            run(module("vmctl", "exec", inst.name, "--", "sh", "-c", line), timeout_s=_LIMIT_S)
        snapshot = taking.take(inst, _name())
    finally:
        engine.rm(inst.name, force=True)
    try:
        yield snapshot
    finally:
        record.remove(snapshot.name)


def _clone(snapshot: Snapshot) -> Instance:
    return cloning.clone(snapshot, cloning.of(snapshot, _name(), snapshot.work.ports))


def _last_of_crowd(snapshot: Snapshot) -> Instance:
    """Return a clone that was started while others run, which are gone when it is used."""
    others: list[Instance] = []
    try:
        for _ in range(CROWD):
            others.append(_clone(snapshot))
        begun_s = time.monotonic()
        last = _clone(snapshot)
        last.state.own["bench_s"] = time.monotonic() - begun_s
        last.state.own["bench_memory"] = footprint(last).cgroup_bytes
    finally:
        for other in others:
            engine.rm(other.name, force=True)
    return last


def _sample(way: str, start: Start) -> Sample:
    begun_s = time.monotonic()
    inst = start()
    try:
        first_s = inst.state.own.get("bench_s", time.monotonic() - begun_s)
        port = published.of(inst)[0].host_port
        page_s, again_s = _page_s(port), _page_s(port)
        found = footprint(inst)
        memory_bytes = inst.state.own.get("bench_memory", found.cgroup_bytes)
        return Sample(way, first_s, page_s, again_s, memory_bytes, found.disk_bytes)
    finally:
        engine.rm(inst.name, force=True)


def _page_s(port: int) -> float:
    begun_s = time.monotonic()
    connection = HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    try:
        connection.request("GET", _PAGE)
        answer = connection.getresponse()
        answer.read()
    except OSError as error:
        raise VmctlError(f"no answer through the published port: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise VmctlError(f"{_PAGE} was answered with status {answer.status}")
    return time.monotonic() - begun_s


def rows(result: Result) -> list[tuple[str, ...]]:
    """Return the rows of the table; see COLUMNS."""
    return [_row(way, result.of(way)) for way in result.ways()]


def _row(way: str, samples: list[Sample]) -> tuple[str, ...]:
    first = [sample.first_s for sample in samples]
    times = (median(first), min(first), max(first), *(median(part) for part in _pages(samples)))
    sizes = ([sample.memory_bytes for sample in samples], [sample.disk_bytes for sample in samples])
    return (way, str(len(samples)), *map(format_seconds, times), *map(_size, sizes))


def _pages(samples: list[Sample]) -> tuple[list[float], list[float]]:
    return [sample.page_s for sample in samples], [sample.again_s for sample in samples]


def _size(sizes: list[int | None]) -> str:
    known = [size for size in sizes if size is not None]
    return format_size(int(median(known))) if known else "-"


def notes(result: Result) -> list[str]:
    """Return what the numbers mean, the ratios of clones to cold starts, and why ways are missing."""
    found = [_ratio(result, mode) for mode in MODES]
    return [
        "first answer: from the request until the ready probe (HTTP) has succeeded; page: 2 MB by the published port",
        *filter(None, found),
        *(f"{way}: {why}" for way, why in result.failures.items()),
        f"rounds: {result.runs} after one discarded, in random order, seed {result.seed}; {result.host['cpu']}, "
        f"{result.host['cpus']} CPUs, Linux {result.host['kernel']}",
    ]


def _ratio(result: Result, mode: str) -> str:
    cold, clone = (result.of(f"{mode}, {way}") for way in ("cold", "clone"))
    if not cold or not clone:
        return ""
    ratio = median(sample.first_s for sample in clone) / median(sample.first_s for sample in cold)
    return f"{mode}: a clone answers after {ratio:.2f} of the time of a cold start"


def document(result: Result) -> Mapping[str, Any]:
    """Return the content of `clones.json`: the result with every raw sample."""
    values = {**result._asdict(), "samples": [sample._asdict() for sample in result.samples]}
    return {"format": FORMAT, **values}


def write(result: Result, place: str) -> None:
    """Write `clones.json` and `clones.md` into a folder."""
    lines = ["# Clones compared with starts", "", *markdown_table(COLUMNS, rows(result)), ""]
    folder.write(place, "clones", dict(document(result)), [*lines, *(f"- {note}" for note in notes(result))])
