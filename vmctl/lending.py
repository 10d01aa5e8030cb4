"""Read the writable layer of an instance, for `diff` and `commit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vmctl import backends
from vmctl.backend import HasWritable
from vmctl.errors import StateError
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.writable import Writable


@contextmanager
def writable(inst: Instance, *, pause: bool) -> Iterator[Writable]:
    """Yield the writable layer of an instance.

    Raises StateError if it was never started, UnavailableError if its mode cannot do that, and NotFoundError at the end
    if the instance was removed meanwhile, because then the files read may be incomplete.
    """
    if inst.state.waiting:
        raise StateError(f"{inst.name} was never started: it has no files yet", hint=f"vmctl start {inst.name}")
    backend = backends.ability(backends.load(inst.state.mode), HasWritable)
    try:
        with backend.writable(inst, pause=pause) as found:
            yield found
    finally:
        instance.load(inst.name)
