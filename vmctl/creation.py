"""Create an instance without starting it: `start` does that later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vmctl import backends, engine, removal
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from typing import Any


@contextmanager
def created(
    work: Workload, mode: str, *, options: Mapping[str, str] | None = None, state: Mapping[str, Any] = {}
) -> Iterator[Instance]:
    """Yield a new instance, which is locked inside the block and waits for its start after it.

    `state` is that of `engine.create`. The instance is checked like one that is started. If the block fails, it is
    removed. Raises the errors of `engine.create`.
    """
    backend = backends.load(mode, options)
    inst = engine.create(work, backend, held=True, options=options, state=state)
    try:
        with inst.locked():
            yield inst
            inst.state.waiting = True
            inst.save()
    except BaseException:
        removal.remove_unlocked(inst, backend)
        raise
