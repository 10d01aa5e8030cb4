"""Run labs: gather the evidence of each, and decide by its rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench.labs import parameters, place
from bench.labs.lab import UNDECIDABLE, Evidence, Lab, Verdict
from vmctl.errors import VmctlError


class Outcome(NamedTuple):
    """What a lab has shown here."""

    number: int
    name: str
    claim: str
    verdict: str
    reason: str
    evidence: Evidence
    took_s: float
    predicted: str | None = None


class Runner:
    """Runs labs one after the other; labs that look at the same instances share them."""

    def __init__(
        self, options: Mapping[str, str], modes: tuple[str, ...], progress: Callable[[str], None], seed: str = ""
    ) -> None:
        """`modes` are those that may be used; a lab that needs another one is undecidable."""
        self._options, self._modes, self._seed = options, modes, seed
        self._room = place.Room(options, progress)
        self._problems: dict[str, str] = {}

    def run(self, lab: Lab, predicted: str | None = None) -> Outcome:
        """Run one lab. What it has started is removed, also if it is interrupted."""
        begun_s = time.monotonic()
        seen: Evidence = {}
        verdict = self._refused(lab)
        if verdict is None:
            try:
                self._room.parameters = parameters.drawn(self._seed, lab.name, lab.parameters)
                with self._room.cleaned():
                    seen = {**parameters.evidence(self._room.parameters), **lab.gather(self._room)}
                verdict = lab.decide(seen)
            except VmctlError as error:
                verdict = Verdict(UNDECIDABLE, str(error))
        took_s = time.monotonic() - begun_s
        return Outcome(lab.number, lab.name, lab.claim, *verdict, seen, took_s, predicted)

    def _refused(self, lab: Lab) -> Verdict | None:
        """Return why a lab cannot be decided, if one of its modes cannot be used."""
        for mode in lab.modes:
            if mode not in self._modes:
                return Verdict(UNDECIDABLE, f"mode {mode} was not asked for")
            if mode not in self._problems:
                self._problems[mode] = place.problem(mode, self._options)
            if self._problems[mode]:
                return Verdict(UNDECIDABLE, self._problems[mode])
        return None
