"""Lab 37: whether guests that begin with a template need less memory."""

from __future__ import annotations

from statistics import median

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, samples
from bench.labs.lab14_density import COUNTS
from vmctl.spec.workload import VmOptions

_WAYS = {"that boots": "off", "from a template": "on"}
_LESS = 0.9


def _gather(place: Place) -> Evidence:
    place.ask("vm", "true", vm=VmOptions(warm="on"))  # makes the template, unless it exists
    seen: dict[str, Value] = {}
    for way, warm in _WAYS.items():
        keys = {} if warm == "off" else {"vm": VmOptions(warm="on")}  # those that boot are those of lab 14
        found = place.crowd("vm", COUNTS["vm"], **keys)
        seen |= {f"guest {way}: {name}": found[name] for name in ("PSS", "RSS", "start")}
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"guest {way}: PSS" for way in _WAYS)):
        return unknown
    boots, template = (median(samples(seen, f"guest {way}: PSS")) for way in _WAYS)
    reason = f"{quantity(boots, 'bytes')} for each guest that boots, {quantity(template, 'bytes')} from a template: "
    reason += f"{template / boots - 1:+.0%}"
    starts = [samples(seen, f"guest {way}: start") for way in _WAYS]
    if all(starts):
        before, after = map(median, starts)
        reason += f"; starts {quantity(before, 's')} and {quantity(after, 's')}: {after / before - 1:+.0%}"
    return Verdict(HOLDS if template <= _LESS * boots else REFUTED, reason)


LAB = Lab(
    number=37,
    name="template-memory",
    claim="Guests that begin with one template need less memory than guests that boot.",
    why="Each guest that boots has a private copy of the same kernel, although all have booted in the same way.",
    steps=(
        f"start {COUNTS['vm']} guests that boot (as in lab 14), and {COUNTS['vm']} that map the memory of one template",
        "add up PSS of each, which divides a page that several have in memory among them (proc(5))",
        "note how long each start took, too",
    ),
    rule=f"holds if PSS of a guest from the template is at most {_LESS:g} times that of one that boots; else refuted",
    modes=("vm",),
    gather=_gather,
    decide=_decide,
    next=(
        "RSS of the same guests: why does it not show what is shared?",
        "an emulated guest keeps translated code in its QEMU: what of the difference is that? (docs/clones.md)",
        "write 50 MiB in each guest: what is left of the difference?",
    ),
    published="Kata Containers, how-to for VM templates: 0.82 and 0.6 s, 223 and 178 MiB, printed as 73.2 and 79.8 % "
    "less (the figures give 26.8 and 20.2 %: lab 33)",
)
