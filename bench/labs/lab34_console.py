"""Lab 34: the serial console as a part of a guest's start."""

from __future__ import annotations

from bench.labs import boots
from bench.labs.lab import Evidence, Lab, Place, Verdict
from vmctl.spec.workload import VmOptions

_WAYS = {
    "without messages": {"vm": VmOptions(console="late")},
    "with messages": {"vm": VmOptions(console="live")},
}


def _gather(place: Place) -> Evidence:
    return boots.gather(place, _WAYS)


def _decide(seen: Evidence) -> Verdict:
    return boots.decide(seen, _WAYS)


LAB = Lab(
    number=34,
    name="console",
    claim="The messages on the serial console are a part of what a guest's start costs.",
    why="A serial line takes one byte at a time, and each byte leaves the guest. A measured boot is often a quiet one.",
    steps=(
        f"start a guest in {boots.ROUNDS} rounds: with `vm: {{console: late}}` its kernel keeps messages until init",
        "and with `vm: {console: live}`, which writes each message to the console at once",
        "take the processor time of the whole guest until its first output, as `vmctl stats` counts it",
    ),
    rule=boots.RULE,
    modes=("vm",),
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl timeline of both: in which phase does the difference appear?",
        "make console ROUNDS=15, in a clone of vmctl: what does it add on a quiet machine?",
        "vmctl logs --boot: how many bytes are the messages, and what does one of them cost?",
    ),
    published="Firecracker (its SPECIFICATION and the data of NSDI 2020): about 70 ms of a boot of 125 ms",
)
