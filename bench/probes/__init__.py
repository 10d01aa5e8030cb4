"""Probes: one module per kind of sample. Each has

- `prepare(work) -> Workload`: called once, before anything is measured, in the process of `vmctl bench`: make what the
  probe needs (an image with a tool in it) and return the workload that is measured. Repeatable.
- `observe(request) -> Seen`: called in a process of its own for every sample. Makes instances, looks, removes them.
- `QUESTIONS`: what its samples answer.
- `ROUNDS`: at most so many rounds of it, whatever `--runs` says; None for as many as asked for.
- `limit_s(work, instances) -> float`: after so long a sample is given up, where `--time-limit` says nothing.

What `observe` raises (errors of vmctl.errors) becomes the sample's error. It has not to tidy up after a SIGKILL: every
instance it makes is called `request.name` or `request.name-...`, and those are removed by whoever started it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vmctl import backends
from vmctl.backend import Backend
from vmctl.workload import Workload


class Request(NamedTuple):
    """One sample to be taken."""

    work: Workload  # as `prepare` returned it, under the name `name`
    name: str
    mode: str
    look: bool = False  # a warm-up: ask the instance also what it answers (texts)
    instances: int = 1
    cold: bool = False  # the page cache has just been emptied of what the instance reads
    options: Mapping[str, str] = {}  # of the mode

    def backend(self) -> Backend:
        """Return the backend of the mode, with its options."""
        return backends.load(self.mode, self.options)


class Seen(NamedTuple):
    """What was observed; becomes a `bench.model.Sample`."""

    marks_ns: dict[str, int]
    values: dict[str, float]
    series: dict[str, list[float]]
    texts: dict[str, str]
