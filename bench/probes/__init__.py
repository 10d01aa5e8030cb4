"""Probes: one module per kind of sample. Each has

- `prepare(work) -> Workload`: called once, before anything is measured, in the process of `vmctl bench`. It makes what
  the probe needs (an image with a tool in it) and returns the workload to measure. It can be called again.
- `observe(request) -> Seen`: called in a worker process, once per sample. Makes, observes and removes instances.
- `QUESTIONS`: the questions that its samples answer.
- `ROUNDS`: the most rounds, even if `--runs` is higher; None for no limit.
- `limit_s(work, instances) -> float`: the time limit of one sample in seconds, unless `--time-limit` is given.

An error of vmctl.errors that `observe` raises becomes the sample's error. `observe` need not clean up after a SIGKILL:
its instances are called `request.name` or `request.name-...`, and the parent of the worker removes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vmctl import backends
from vmctl.backend import Backend
from vmctl.spec.workload import Workload


class Request(NamedTuple):
    """One sample to take."""

    work: Workload  # the workload that `prepare` returned, with the name `name`
    name: str
    mode: str
    look: bool = False  # a warm-up: also record the instance's answers (texts)
    instances: int = 1
    cold: bool = False  # evict the files that the instance reads from the page cache first
    options: Mapping[str, str] = {}  # of the mode

    def backend(self) -> Backend:
        """Return the backend of the mode, with its options."""
        return backends.load(self.mode, self.options)


class Seen(NamedTuple):
    """The observations of one sample; they become a `bench.model.Sample`."""

    marks_ns: dict[str, int]
    values: dict[str, float]
    series: dict[str, list[float]]
    texts: dict[str, str]
