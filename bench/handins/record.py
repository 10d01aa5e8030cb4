"""The record of a run of labs: every verdict with its evidence, as the labs have found it. It is what is handed in.

Each run of a lab has a short id (`r07`) to cite it by, and a digest over itself and the digest before: so an edited
number is found. Who computes all digests again is not found: the record has no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from bench import labs
from bench.labs.lab import Evidence, Samples
from bench.labs.running import Outcome
from vmctl.errors import NotFoundError, SpecError
from vmctl.linux.filetree import replacing
from vmctl.records import FORMAT, MAX_BYTES, UnreadableError, checked_format, content

FILE = "labs.json"
_RUNS_MAX = 10_000
# What no machine measures is damage, not a value to compute with: infinity, not a number, the year 9999.
Number = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]
Date = Annotated[float, msgspec.Meta(ge=-1e11, le=1e11)]  # seconds since the epoch


class Measured(msgspec.Struct, frozen=True):
    """Measured values, see `bench.labs.lab.Samples`."""

    unit: str
    values: tuple[Number, ...]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a lab."""

    id: str  # r01, r02, ...
    number: int
    lab: str
    rule: str  # SHA-256 of the lab's file: labs with the same one decide alike
    predicted: str | None = None
    evidence: dict[str, str | Measured]
    verdict: str
    reason: str
    begun: Date
    took_s: Number
    host: str  # a key of Record.hosts
    boot: str  # boot id of the host
    accelerator: str  # of guests: kvm or tcg, "" without a guest
    load: tuple[Number, Number]  # average over a minute, before and after
    digest: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of one student. Keys that a later vmctl has added are ignored."""

    vmctl: str
    id: str
    student: str = ""
    seed: str = ""
    hosts: dict[str, dict[str, Any]] = {}
    runs: tuple[Run, ...] = ()

    def latest(self) -> dict[str, Run]:
        """Return the last run of each lab, by its name, in the order of their numbers."""
        found = {run.lab: run for run in self.runs}
        return dict(sorted(found.items(), key=lambda item: item[1].number))


def evidence(run: Run) -> Evidence:
    """Return the evidence of a run as the rule of its lab reads it."""
    return {
        name: value if isinstance(value, str) else Samples(value.unit, value.values)
        for name, value in run.evidence.items()
    }


def kept(seen: Evidence) -> dict[str, str | Measured]:
    """Return evidence as a record has it."""
    return {name: value if isinstance(value, str) else Measured(*value) for name, value in seen.items()}


def added(record: Record, outcome: Outcome, about: Mapping[str, Any]) -> Record:
    """Return the record with another run; `about` are the fields of Run that are not of the outcome."""
    run = Run(
        id=f"r{len(record.runs) + 1:02}",
        number=outcome.number,
        lab=outcome.name,
        predicted=outcome.predicted,
        evidence=kept(outcome.evidence),
        verdict=outcome.verdict,
        reason=outcome.reason,
        took_s=outcome.took_s,
        rule=labs.digests().get(outcome.name, ""),
        **about,
    )
    before = record.runs[-1].digest if record.runs else record.id
    return msgspec.structs.replace(
        record, runs=(*record.runs, msgspec.structs.replace(run, digest=digest(run, before)))
    )


def digest(run: Run, before: str) -> str:
    """Return the SHA-256 over a run and the digest of the run before, or the id of the record for the first."""
    plain = msgspec.to_builtins(msgspec.structs.replace(run, digest=""))
    text = json.dumps([before, plain], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write(path: str, record: Record) -> None:
    """Write a record, whole or not at all, for its owner only."""
    text = json.dumps({"format": FORMAT, **msgspec.to_builtins(record)}, indent=1)
    with replacing(path) as new, open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def read(path: str) -> Record:
    """Return the record in a file, in the folder of a run, or in a notebook made of it.

    Raises NotFoundError, SpecError if it is damaged or written by a later vmctl.
    """
    if os.path.isdir(path):
        path = os.path.join(path, FILE)
    try:
        raw = content(path, path)
    except FileNotFoundError:
        raise NotFoundError(f"there is no record {path}", hint="`vmctl lab run --all` writes lab-results") from None
    except UnreadableError as error:
        raise SpecError(str(error), hint=error.hint) from None
    return parse(raw, path)


def parse(raw: bytes, where: str) -> Record:
    """Return a record. Raises SpecError if it is damaged or written by a later vmctl."""
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{where} is larger than {MAX_BYTES >> 20} MiB")
    try:
        value = json.loads(raw)
        if isinstance(value, dict) and "nbformat" in value:
            value = value.get("metadata", {}).get("vmctl")
        record = msgspec.convert(checked_format(value, where), Record)
    except UnreadableError as error:
        raise SpecError(str(error), hint=error.hint) from None
    except (ValueError, RecursionError, AttributeError) as error:
        raise SpecError(f"{where} is damaged: {str(error)[:200]}") from None
    if len(record.runs) > _RUNS_MAX:
        raise SpecError(f"{where} has {len(record.runs)} runs; the limit is {_RUNS_MAX}")
    return record
