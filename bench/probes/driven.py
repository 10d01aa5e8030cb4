"""An instance of the probe program that takes one step per signal (see bench/tool/go.h)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from bench.probes import Request, lines, tool
from vmctl.backend import Backend, Start
from vmctl.instances.instance import Instance

START_S = 120.0  # until the program runs
STEP_S = 120.0  # for one step: an emulated guest on a busy host


class Driven(NamedTuple):
    """An instance whose program waits for the signal to take its next step."""

    start: Start
    backend: Backend

    @property
    def inst(self) -> Instance:
        """The instance."""
        return self.start.inst

    def step(self, until: str) -> str:
        """Let the program take its next step. The step ends with a line that begins with `until`: return its rest.

        Raises DeadlineError after STEP_S, VmctlError if the program ends.
        """
        self.backend.signal(self.inst, signal.SIGUSR1)
        return self.wait(until, STEP_S)

    def wait(self, until: str, timeout_s: float) -> str:
        """Return the rest of the first line that begins with `until`."""
        found = lines.follow(self.start.watch, until, timeout_s)
        return next(line for _, line in found if line.startswith(until)).removeprefix(until).strip()


@contextmanager
def driven(request: Request) -> Iterator[Driven]:
    """Lend an instance whose program waits for its first step; it is removed at the end. Raises VmctlError."""
    with tool.running(request) as start:
        one = Driven(start, request.backend())
        one.wait("ready", START_S)
        yield one
