"""Checks a record: each verdict is computed again from its evidence by the rule, and evidence that cannot be is found.

A record has no signature: who computes all digests again, with numbers that do not contradict each other, is not found.
What is found is an edited number, a verdict that its evidence does not give, evidence of another machine, values that
two records share, and figures that do not compare.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from bench import labs
from bench.formatting import quantity
from bench.handins import record as records
from bench.handins.record import Measured, Record, Run
from bench.labs import parameters
from bench.labs.lab import UNDECIDABLE, Lab, Verdict

WRONG, DOUBTFUL = "wrong", "doubtful"
FEW = 5  # observations: fewer do not show how much chance there is in a figure
_DAY_S = 86_400.0
_UNREADABLE = (
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
)  # by a rule, of evidence it did not gather
_BOOT = "boot_id"
_HERE = "this machine"


class Finding(NamedTuple):
    """What is wrong or doubtful, in a run (its id), in a lab that was not run (its name), or in the record ("")."""

    level: str  # WRONG | DOUBTFUL
    run: str
    text: str


def check(record: Record) -> list[Finding]:
    """Return what is wrong or doubtful in a record, in the order of its runs; nothing if all is confirmed."""
    found = list(_digests(record))
    passed_s = 0.0
    for run in record.runs:
        passed_s += max(0.0, run.took_s)
        found += [Finding(WRONG, run.id, text) for text in (*_contradictions(run, record), *_values(run, passed_s))]
        found += [Finding(DOUBTFUL, run.id, text) for text in _doubts(run, record)]
    return [*found, *_machines(record)]


def _digests(record: Record) -> Iterator[Finding]:
    before = record.id
    for number, run in enumerate(record.runs, 1):
        if run.id != f"r{number:02}":
            yield Finding(WRONG, run.id, f"it is run {number} of the record: a run was removed or added afterwards")
        if run.digest != records.digest(run, before):
            yield Finding(WRONG, run.id, "its digest is not that of its content: it was edited after the run")
        before = run.digest


def _contradictions(run: Run, record: Record) -> Iterator[str]:
    lab = next((one for one in labs.labs() if one.name == run.lab), None)
    if lab is None:
        yield f"this vmctl has no lab {run.lab[:60]!r}"
    else:
        yield from _verdict(run, lab)
        yield from _parameters(run, lab, record.seed)
    if run.host not in record.hosts:
        yield "the facts of its host are missing"
    if not 0 < run.begun < time.time() + _DAY_S or run.took_s < 0:
        yield "it was run at a time that cannot be"
    yield from _evidence(run)


def _verdict(run: Run, lab: Lab) -> Iterator[str]:
    if run.verdict == UNDECIDABLE and not run.evidence:
        return  # it was not run: the reason is the host's
    try:
        again = lab.decide(records.evidence(run))
    except _UNREADABLE as error:
        yield f"its rule cannot read the evidence ({type(error).__name__})"
        return
    same_rule = run.rule == labs.digests().get(run.lab)
    if again.word != run.verdict:
        yield f"the verdict is {run.verdict[:60]!r}, and its evidence gives {again.word!r}: {again.reason}"
    elif same_rule and again != Verdict(run.verdict, run.reason):
        yield f"the reason is {run.reason[:200]!r}, and its evidence gives {again.reason!r}"


def _parameters(run: Run, lab: Lab, seed: str) -> Iterator[str]:
    """Yield parameters that the seed of the record does not give; a later version of the lab may have others."""
    if run.rule == labs.digests().get(run.lab) and run.evidence:
        for name, value in parameters.evidence(parameters.drawn(seed, lab.name, lab.parameters)).items():
            if (found := run.evidence.get(name)) != value:
                of = f"the seed {seed[:60]!r}" if seed else "a record without a seed"
                shown = repr(found[:60]) if isinstance(found, str) else "missing"
                yield f"{name!r} is {shown}, and {of} gives {value!r}"


def _evidence(run: Run) -> Iterator[str]:
    """Yield evidence that no run on one machine gives."""
    texts = {name: value for name, value in run.evidence.items() if isinstance(value, str)}
    boots = {name.partition(":")[0]: value for name, value in texts.items() if name.endswith(f": {_BOOT}")}
    if boots.get(_HERE, run.boot) != run.boot:
        yield f"its evidence is of the boot {boots[_HERE][:40]!r}, and it was run in the boot {run.boot[:40]!r}"
    kernels = {name.partition(":")[0]: value for name, value in texts.items() if name.endswith(": kernel")}
    for place, boot in boots.items():
        if place.startswith("vm") and boot == run.boot:
            yield f"{place} has the boot id of the machine: so it was not a guest"
        if boot == run.boot and place in kernels and _HERE in kernels and kernels[place] != kernels[_HERE]:
            yield f"{place} has the machine's boot id and another kernel, {kernels[place][:60]!r}: its uname is faked"


def _values(run: Run, passed_s: float) -> Iterator[str]:
    """Yield values that were not measured; `passed_s` is the time of this lab and of those before, whose it shares."""
    for name, value in run.evidence.items():
        if isinstance(value, Measured) and value.unit == "s" and value.values and max(value.values) > passed_s:
            longest = quantity(max(value.values), "s")
            yield f"{name[:60]!r} has a value of {longest}, and all labs so far took {quantity(passed_s, 's')}"
        if isinstance(value, Measured) and value.unit == "s" and any(one < 0 for one in value.values):
            yield f"{name[:60]!r} has a value below 0"


def _doubts(run: Run, record: Record) -> Iterator[str]:
    if run.rule != labs.digests().get(run.lab):
        yield "it was decided by another version of the lab; the verdict was computed again by this one"
    few = [name for name, value in run.evidence.items() if isinstance(value, Measured) and 1 < len(value.values) < FEW]
    if few:
        yield f"fewer than {FEW} values: {', '.join(name[:60] for name in few)}"
    cpus = record.hosts.get(run.host, {}).get("cpus")
    if isinstance(cpus, int) and max(run.load) > cpus:
        yield f"the host was busy: its load was {max(run.load):.1f} on {cpus} processors"


def _machines(record: Record) -> Iterator[Finding]:
    """Yield runs that do not compare with the first: of another host, another accelerator, or inside a guest."""
    guests = {boot: run.id for run in record.runs for boot in _guests(run).values()}
    for run in record.runs:
        if (other := guests.get(run.boot)) and other != run.id:
            yield Finding(WRONG, run.id, f"it was run inside the guest of {other}, with which it cannot be compared")
    for what, values in (
        ("hosts", {run.id: run.host for run in record.runs}),
        ("accelerators", {run.id: run.accelerator for run in record.runs if run.accelerator}),
    ):
        if len(set(values.values())) > 1:
            first = next(iter(values.values()))
            others = [name for name, value in values.items() if value != first]
            yield Finding(DOUBTFUL, "", f"{', '.join(others)}: other {what} than before, so figures do not compare")


def shared(found: Mapping[str, Record]) -> list[tuple[str, str, str]]:
    """Return which two records share what only one run can have found: (file, file, sentence)."""
    return [
        (one, other, text)
        for (one, first), (other, second) in combinations(found.items(), 2)
        for text in _shared(first, second)
    ]


def _shared(first: Record, second: Record) -> Iterator[str]:
    if first.id == second.id:
        yield "they are the same record"
    if first.seed and first.seed == second.seed:
        yield f"they have the same seed {first.seed[:60]!r}"
    ours = {value: (run.id, name) for run in first.runs for name, value in _unique(run)}
    for run in second.runs:
        for name, value in _unique(run):
            if value in ours:
                yield f"{' '.join(ours[value])} and {run.id} {name} are equal to the last digit"


def _unique(run: Run) -> Iterator[tuple[str, str | tuple[float, ...]]]:
    """Yield the evidence that is never the same twice: boot ids of guests, and several measured values."""
    yield from _guests(run).items()
    for name, value in run.evidence.items():
        if isinstance(value, Measured) and value.unit == "s" and len(value.values) > 1:
            yield name, value.values


def _guests(run: Run) -> dict[str, str]:
    """Return the boot ids of guests in the evidence of a run, by their names there."""
    return {
        name: value
        for name, value in run.evidence.items()
        if isinstance(value, str) and name.startswith("vm") and name.endswith(f": {_BOOT}")
    }


def confirmed(record: Record, findings: Sequence[Finding]) -> dict[str, Run]:
    """Return the last run of each lab that has a verdict with which nothing is wrong, by the lab's name."""
    wrong = {finding.run for finding in findings if finding.level == WRONG}
    if "" in wrong:
        return {}
    return {name: run for name, run in record.latest().items() if run.verdict != UNDECIDABLE and run.id not in wrong}
