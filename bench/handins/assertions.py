"""A teacher's own assertions on a record, in a YAML file.

labs: [shared-kernel, same-port]        # that must have a confirmed verdict; all labs without this key
points: {shared-kernel: 2}              # for a lab; 1 without
verdicts: {shared-kernel: holds}
predictions: true                       # each of these labs was predicted
student: true                           # the record has a name
seed: "{student}"                       # the seed of the run; {student} is the name in the record
accelerator: kvm
doubtful: false                         # whether runs with doubts count
values:
  - {lab: start-times, name: "container: start", below: 0.5}   # the median, in the unit of the evidence
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import msgspec
import yaml

from bench import labs
from bench.handins.check import WRONG, Finding
from bench.handins.record import Measured, Record, Run
from vmctl.errors import NotFoundError, SpecError

_BYTES_MAX = 1 << 20


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bound for the median of measured evidence."""

    lab: str
    name: str
    below: float | None = None
    above: float | None = None


class Assertions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a record has to have."""

    labs: tuple[str, ...] = ()
    points: dict[str, float] = {}
    verdicts: dict[str, str] = {}
    predictions: bool = False
    student: bool = False
    seed: str = ""
    accelerator: str = ""
    doubtful: bool = True
    values: tuple[Value, ...] = ()

    def wanted(self, record: Record) -> list[str]:
        """Return the names of the labs that count, in the order of their numbers."""
        return [one.name for one in labs.labs() if one.name in (self.labs or record.latest())]

    def worth(self, name: str) -> float:
        """Return the points of a lab."""
        return self.points.get(name, 1.0)


def read(path: str) -> Assertions:
    """Return the assertions in a file. Raises NotFoundError, SpecError."""
    try:
        with open(path, "rb") as file:
            value: Any = yaml.safe_load(file.read(_BYTES_MAX))
        found = msgspec.convert({} if value is None else value, Assertions)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SpecError(f"{path} is not a list of assertions: {str(error).splitlines()[0][:200]}") from None
    known = {one.name for one in labs.labs()}
    for name in (*found.labs, *found.points, *found.verdicts, *(one.lab for one in found.values)):
        if name not in known:
            raise SpecError(f"{path}: there is no lab {name!r}", hint="`vmctl lab ls` lists them")
    return found


def check(record: Record, asked: Assertions) -> list[Finding]:
    """Return which assertions a record does not meet."""
    latest = record.latest()
    found = [Finding(WRONG, "", text) for text in _of_record(record, asked)]
    for name in asked.wanted(record):
        if (run := latest.get(name)) is None:
            found.append(Finding(WRONG, name, "it was not run"))
        else:
            found += [Finding(WRONG, run.id, text) for text in _of_run(run, asked)]
    return found


def _of_record(record: Record, asked: Assertions) -> Iterator[str]:
    if asked.student and not record.student:
        yield "the record has no name of a student"
    if asked.seed and record.seed != (wanted := asked.seed.replace("{student}", record.student)):
        yield f"the seed is {record.seed[:60]!r}, not {wanted[:60]!r}"


def _of_run(run: Run, asked: Assertions) -> Iterator[str]:
    if asked.predictions and run.predicted is None:
        yield "it was not predicted"
    if (wanted := asked.verdicts.get(run.lab)) and run.verdict != wanted:
        yield f"the verdict is {run.verdict[:60]!r}, not {wanted!r}"
    if asked.accelerator and run.accelerator not in ("", asked.accelerator):
        yield f"the accelerator is {run.accelerator[:20]!r}, not {asked.accelerator!r}"
    for bound in asked.values:
        if bound.lab == run.lab:
            yield from _bound(run.evidence, bound)


def _bound(evidence: Mapping[str, str | Measured], bound: Value) -> Iterator[str]:
    value = evidence.get(bound.name)
    if not isinstance(value, Measured) or not value.values:
        yield f"there is no measured {bound.name!r}"
        return
    middle = median(value.values)
    if bound.below is not None and not middle < bound.below:
        yield f"{bound.name!r} is {middle:.6g}, not below {bound.below:.6g}"
    if bound.above is not None and not middle > bound.above:
        yield f"{bound.name!r} is {middle:.6g}, not above {bound.above:.6g}"
