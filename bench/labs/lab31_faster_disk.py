"""Lab 31: a guest that is faster at its disk than its host."""

from __future__ import annotations

from bench.formatting import quantity
from bench.labs.lab import (
    HOLDS,
    REFUTED,
    UNDECIDABLE,
    Evidence,
    Lab,
    Place,
    Value,
    Verdict,
    missing,
    samples,
    text,
)
from bench.labs.measuring import values
from bench.probes.io import IMAGE, JOBS

_MODES = ("host", "vm")
_ROUNDS, _FASTER = 2, 1.1


def _gather(place: Place) -> Evidence:
    if place.vmctl("image", "inspect", IMAGE).rpartition("\nexit ")[2] != "0":
        return {"no image": f"there is no image {IMAGE}: `vmctl bench --metrics io SPEC` makes it of Debian's packages"}
    found = place.samples("io", _MODES, _ROUNDS)
    seen: dict[str, Value] = {}
    for mode in _MODES:
        for job in JOBS:
            seen[f"{mode}: {job}"] = values(found[mode], f"{job}_per_s", "1/s")
        seen |= {f"{mode}: {name}": one for name, one in found[mode][0].texts.items() if name == "caching"}
    return seen


def _decide(seen: Evidence) -> Verdict:
    if reason := text(seen, "no image"):
        return Verdict(UNDECIDABLE, reason)
    if unknown := missing(seen, *(f"{mode}: {job}" for mode in _MODES for job in JOBS)):
        return unknown
    best = {job: [max(samples(seen, f"{mode}: {job}")) for mode in _MODES] for job in JOBS}
    faster = [job for job, (host, _) in best.items() if min(samples(seen, f"vm: {job}")) >= host * _FASTER]
    each = ", ".join(
        f"{job} {quantity(guest, '1/s')} against {quantity(host, '1/s')}" for job, (host, guest) in best.items()
    )
    return Verdict(HOLDS if faster else REFUTED, f"guest against host: {each}")


LAB = Lab(
    number=31,
    name="faster-disk",
    claim="A guest can be faster at its disk than its host.",
    why="It cannot: then the cache or the durability is another one, and the comparison means nothing.",
    steps=(
        f"run {len(JOBS)} jobs of fio on the host and in a guest: reads and writes of 4 KiB, and durable writes",
        "count the operations per second, by this machine's clock",
        "read how each of them caches: a guest's disk is a file in the page cache of its host",
    ),
    rule=f"holds if in one job each sample of the guest has {_FASTER:g} times the operations of the host's best",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "cut the power (of a throw-away machine): whose data is still there?",
        "echo 3 >/proc/sys/vm/drop_caches on the host between two jobs",
        "only durable writes: who is faster now?",
    ),
    published="several comparisons have printed guests that write faster than their host",
)
