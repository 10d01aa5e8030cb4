"""Lab 30: the network card as a part of a guest's start."""

from __future__ import annotations

from statistics import median

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, UNDECIDABLE, Evidence, Lab, Place, Value, Verdict, missing, samples
from bench.labs.measuring import took

_NETWORKS = {"with a network card": "bridge", "without": "none"}
_ROUNDS = 3


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for name, network in _NETWORKS.items():
        found = place.samples("start", ("vm",), _ROUNDS, command=("echo", "up"), network=network)["vm"]
        seen[f"vm {name}: start"] = took(found, "T0", "T5")
        seen["vm: accelerator"] = found[0].texts.get("accelerator", "")
    return seen


def _decide(seen: Evidence) -> Verdict:
    names = [f"vm {name}: start" for name in _NETWORKS]
    if unknown := missing(seen, *names):
        return unknown
    with_card, without = (samples(seen, name) for name in names)
    reason = f"{quantity(median(with_card), 's')} with a card, {quantity(median(without), 's')} without"
    if min(with_card) > max(without):
        return Verdict(HOLDS, reason)
    if median(with_card) <= median(without):
        return Verdict(REFUTED, reason)
    return Verdict(UNDECIDABLE, f"{reason}, but the times overlap: more rounds, or a quieter machine")


LAB = Lab(
    number=30,
    name="network-card",
    claim="A network card is a part of what a guest's start costs.",
    why="`Boots in 125 ms` is true of a guest without one; nobody has such a guest.",
    steps=(
        f"start `echo up` {_ROUNDS} times in guests with the default network, and as often with `network: none`",
        "take the time from the request to the first byte of output",
        "note whether guests are emulated here",
    ),
    rule="holds if each start with a card took longer than each without; refuted if the median did not",
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
