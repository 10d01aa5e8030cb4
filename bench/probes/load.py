"""Memory that a workload takes and gives back: idle, with a working set of known size in use, and after freeing it."""

from __future__ import annotations

from bench import atrest
from bench.model import Sample
from bench.probes import Request, Seen, tool
from bench.probes.driven import START_S, STEP_S, Driven, driven
from bench.questions import Question, value
from vmctl.footprint import footprint
from vmctl.spec.workload import Workload

ROUNDS = 3
SET_BYTES = 64 * 1024**2
LIMIT_SHARE = 4  # the working set takes at most a quarter of the memory limit
REPORT_S = 2.5  # a guest reports free pages to its host after 2 s (PAGE_REPORTING_DELAY in the kernel)
PAGE_BYTES = 4096


def _given_back(sample: Sample) -> list[float]:
    """Return the share of the load's memory that has come back."""
    found = _values(sample, "idle_cgroup_bytes", "loaded_cgroup_bytes", "freed_cgroup_bytes")
    return [(loaded - freed) / (loaded - idle) for idle, loaded, freed in found if loaded > idle]


def _taken(sample: Sample) -> list[float]:
    """Return the host's memory taken per byte that the workload took."""
    found = _values(sample, "idle_cgroup_bytes", "loaded_cgroup_bytes", "set_bytes")
    return [(loaded - idle) / size for idle, loaded, size in found]


def _values(sample: Sample, *names: str) -> list[list[float]]:
    """Return a list with the values of these names as its one entry, or an empty list if one was not observed."""
    return [[sample.values[name] for name in names]] if sample.values.keys() >= set(names) else []


QUESTIONS = (
    Question(
        "memory.loaded_pss_bytes",
        "memory with 64 MiB in use (PSS)",
        "bytes",
        value("loaded_pss_bytes"),
        meaning="Sum of Pss of every process after a program has touched every page of 64 MiB, or of a quarter of the"
        " memory limit if that is less. The program runs with the workload's image and resources.",
    ),
    Question(
        "memory.loaded_cgroup_bytes",
        "memory with 64 MiB in use (cgroup)",
        "bytes",
        value("loaded_cgroup_bytes"),
        meaning="The same state: the memory charged to the cgroup.",
    ),
    Question(
        "memory.taken_share",
        "  host memory per byte in use",
        "share",
        _taken,
        meaning="Increase of the cgroup's memory over idle, divided by the bytes touched. It is less than 100 % if a"
        " guest used free pages that it had already got from its host.",
    ),
    Question(
        "memory.given_back_share",
        "  given back when freed",
        "share",
        _given_back,
        less_is_better=False,
        meaning="The share of this increase that is no longer charged to the cgroup after munmap(2), once its memory is"
        " flat again.",
    ),
)


def set_bytes(work: Workload) -> int:
    """Return the size of the working set in bytes: 64 MiB, or a quarter of the memory limit if that is less."""
    limit = work.resources.memory_bytes
    return SET_BYTES if limit is None else min(SET_BYTES, limit // LIMIT_SHARE // PAGE_BYTES * PAGE_BYTES)


def prepare(work: Workload) -> Workload:
    """Return a workload that takes memory and frees it, with the user's image and resources."""
    return tool.with_program(work)._replace(command=(tool.PATH, "hold", str(set_bytes(work))))


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return START_S + 2 * STEP_S + 60.0


def observe(request: Request) -> Seen:
    """Return PSS and cgroup memory in the three states. Raises errors of vmctl.errors."""
    size = set_bytes(request.work)
    values: dict[str, float] = {"set_bytes": size}
    texts: dict[str, str] = {}
    if size < SET_BYTES:
        texts["working_set"] = f"{size} bytes, a quarter of the memory limit"
    with driven(request) as one:
        _look(one, "idle", values, texts)
        one.step("end load")
        _look(one, "loaded", values, texts)
        one.step("end free")
        _look(one, "freed", values, texts)
        texts.update(tool.texts(one.inst))
    return Seen({}, values, {}, texts)


def _look(one: Driven, state: str, values: dict[str, float], texts: dict[str, str]) -> None:
    """Wait until the instance's memory is flat, and add it to `values` under the name of the state."""
    reports = one.backend.features.own_kernel and state != "loaded"
    more, remarks = atrest.settle(one.inst, REPORT_S if reports else atrest.FLAT_S)
    more.update(atrest.read(one.inst, footprint(one.inst)))
    values.update({f"{state}_{name}": size for name, size in more.items()})
    texts.update({f"{state}_{name}": text for name, text in remarks.items()})
