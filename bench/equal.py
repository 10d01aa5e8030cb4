"""Equal processors and memory for the modes that are compared.

A guest has a machine of a certain size, also if its workload names none; a container or a plain process has the whole
host. So a comparison grants every mode what the guest has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.formatting import quantity
from bench.model import Result
from vmctl import backends, engine
from vmctl.backend import HasOwnSize
from vmctl.spec.workload import Bytes, Workload


def granted(work: Workload, modes: Sequence[str], options: Mapping[str, str]) -> Workload:
    """Return the workload with the processors and memory that every mode gets.

    Those that it does not name are the largest that one of the modes has by default. The workload is returned unchanged
    if it names both, if no mode has a size by default, or if this host cannot limit one of the modes.
    """
    loaded = [backends.load(mode, backends.suited(mode, options)) for mode in modes]
    sizes = [backend.own_size(work) for backend in loaded if isinstance(backend, HasOwnSize)]
    if not sizes or len(loaded) < 2:
        return work
    asked = work.resources
    limits = asked._replace(
        cpus=asked.cpus or max(size.cpus or 1.0 for size in sizes),
        memory_bytes=asked.memory_bytes or Bytes(max(size.memory_bytes or 0 for size in sizes)),
    )
    equal = work._replace(resources=limits)
    return work if any(engine.problems(equal, backend) for backend in loaded) else equal


def sentence(result: Result) -> str:
    """Return which processors and memory the modes had, and whether these were equal; "" without a guest."""
    if not _has_guest(result):
        return ""
    cpus, memory = _asked(result)
    if cpus is None or memory is None:
        missing = [name for name, given in (("processors", cpus), ("memory", memory)) if given is None]
        return (
            f"The modes had unequal {' and '.join(missing)}: the workload asks for none, so a guest had its default (1 "
            "processor, 256 MiB or more), and the other modes had all of the host."
        )
    why = ", as a guest has by default" if result.plan.equalised else ""
    return f"Every mode had {cpus:g} processor{'s' * (cpus != 1)} and {quantity(memory, 'bytes')} of memory{why}."


def unequal(result: Result) -> bool:
    """Return whether the modes had different processors or memory."""
    return _has_guest(result) and None in _asked(result)


def _has_guest(result: Result) -> bool:
    """Return whether a guest is compared with another mode."""
    modes = result.plan.modes
    return len(modes) > 1 and any(result.accelerator(mode) for mode in modes)


def _asked(result: Result) -> tuple[float | None, float | None]:
    """Return the processors and the memory in bytes that the workload asks for."""
    resources = result.plan.workload.get("resources")
    found = [resources.get(key) if isinstance(resources, dict) else None for key in ("cpus", "memory_bytes")]
    cpus, memory = (value if isinstance(value, int | float) else None for value in found)
    return cpus, memory
