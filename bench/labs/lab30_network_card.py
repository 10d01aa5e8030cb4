"""Lab 30: the network card as a part of a guest's start."""

from __future__ import annotations

from statistics import median

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, UNDECIDABLE, Evidence, Lab, Place, Value, Verdict, missing, samples
from bench.labs.measuring import took
from bench.model import Sample

_NETWORKS = {"with a network card": "bridge", "without": "none"}
_ROUNDS = 4


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    found: dict[str, list[Sample]] = {name: [] for name in _NETWORKS}
    for number in range(_ROUNDS):
        for name, network in _NETWORKS.items():
            labels = {"round": str(number)}  # another workload: the samples of the first round are not used again
            found[name] += place.samples("start", ("vm",), command=("echo", "up"), network=network, labels=labels)["vm"]
    for name, some in found.items():
        seen[f"vm {name}: start"] = took(some, "T0", "T5")
        seen["vm: accelerator"] = some[0].texts.get("accelerator", "")
    return seen


def _decide(seen: Evidence) -> Verdict:
    names = [f"vm {name}: start" for name in _NETWORKS]
    if unknown := missing(seen, *names):
        return unknown
    with_card, without = (samples(seen, name) for name in names)
    reason = f"{quantity(median(with_card), 's')} with a card, {quantity(median(without), 's')} without"
    longer = [one > other for one, other in zip(with_card, without, strict=False)]
    reason += f"; longer in {sum(longer)} of {len(longer)} rounds"
    if len(set(longer)) > 1:
        return Verdict(UNDECIDABLE, f"{reason}: a quieter machine, or more rounds, would decide")
    return Verdict(HOLDS if longer[0] else REFUTED, reason)


LAB = Lab(
    number=30,
    name="network-card",
    claim="A network card is a part of what a guest's start costs.",
    why="`Boots in 125 ms` is true of a guest without one; nobody has such a guest.",
    steps=(
        f"start `echo up` in {_ROUNDS} rounds in a guest with the default network, and in one with `network: none`",
        "take the time from the request to the first byte of output",
        "note whether guests are emulated here",
    ),
    rule="holds if the start with a card took longer in each round, refuted if it did in none; else undecidable",
    modes=("vm",),
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl timeline of both: where does the difference appear?",
        "the same for containers: what does a network namespace cost? (lab 22)",
        "-m 1G: is the size of the memory a part of a start, too?",
    ),
    published="Firecracker (NSDI 2020, its data): 17 to 34 ms of 125 ms for the card, about 70 ms for a serial console",
)
