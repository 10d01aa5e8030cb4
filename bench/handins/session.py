"""A run of labs that is recorded: each outcome is on disk before the next lab begins."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from bench import folder as folders
from bench import labs, manifest
from bench.handins import record as records
from bench.handins.record import Record
from bench.labs import lab as lab_texts
from bench.labs.lab import UNDECIDABLE, Lab
from bench.labs.running import Outcome
from vmctl import __version__, doctor
from vmctl.errors import ConflictError, NotFoundError
from vmctl.linux import processes

FOLDER = "lab-results"


class Session:
    """The record of one folder, and the facts of the host, which are found once."""

    def __init__(self, folder: str, record: Record, options: Mapping[str, str]) -> None:
        self.folder, self.record, self._options = folder, record, options
        self._facts: dict[str, Any] = {}

    def decided(self, lab: Lab) -> bool:
        """Return whether the record has a verdict of this lab, by the rule that it has now."""
        run = self.record.latest().get(lab.name)
        return run is not None and run.verdict != UNDECIDABLE and run.rule == labs.digests().get(lab.name)

    def add(self, outcome: Outcome, load_before: float) -> str:
        """Write an outcome to the record and return its id."""
        host = self._host()
        about = {
            "begun": time.time() - outcome.took_s,
            "host": host,
            "boot": processes.boot_id(),
            "accelerator": self._accelerator(outcome),
            "load": (load_before, os.getloadavg()[0]),
        }
        record = records.added(self.record, outcome, about)
        self.record = msgspec.structs.replace(record, hosts={**record.hosts, host: self._facts})
        records.write(os.path.join(self.folder, records.FILE), self.record)
        return self.record.runs[-1].id

    def _host(self) -> str:
        self._facts = self._facts or manifest.facts()
        return str(self._facts["id"])

    def _accelerator(self, outcome: Outcome) -> str:
        """Return the accelerator of the guests of a lab, "" if it had none."""
        if found := lab_texts.text(outcome.evidence, "vm: accelerator"):
            return found
        if not any(name.startswith("vm") for name in outcome.evidence):
            return ""
        asked = self._options.get("accel", "auto")
        works = any(check.name == "/dev/kvm" and check.ok for check in doctor.checks())
        return asked if asked != "auto" else "kvm" if works else "tcg"


@contextmanager
def opened(folder: str, options: Mapping[str, str], *, resume: bool, student: str, seed: str) -> Iterator[Session]:
    """Yield the session of a folder, which no other vmctl has. Runs are added to a record that is there.

    Raises NotFoundError if there is nothing to resume, ConflictError for the record of somebody else, SpecError.
    """
    folders.make(folder)
    with folders.held(folder):
        try:
            found = records.read(folder)
        except NotFoundError:
            if resume:
                raise
            found = Record(vmctl=__version__, id=os.urandom(8).hex(), student=student, seed=seed)
        for what, here, now in (("student", found.student, student), ("seed", found.seed, seed)):
            if now and here and now != here:
                raise ConflictError(
                    f"the record in {folder} has the {what} {here!r}", hint="`--out DIR` chooses another folder"
                )
        if seed and found.runs and not found.seed:
            raise ConflictError(
                f"the record in {folder} has runs without a seed, which have other parameters",
                hint="`--out DIR` chooses another folder",
            )
        found = msgspec.structs.replace(found, student=student or found.student, seed=seed or found.seed)
        yield Session(folder, found, options)
