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
    plan = result.plan
    if len(plan.modes) < 2 or not any(result.accelerator(mode) for mode in plan.modes):
        return ""
    resources = plan.workload.get("resources")
    resources = resources if isinstance(resources, dict) else {}
    cpus, memory = resources.get("cpus"), resources.get("memory_bytes")
    if not isinstance(cpus, int | float) or not isinstance(memory, int | float):
        missing = [name for name, given in (("processors", cpus), ("memory", memory)) if given is None]
        return (
            f"The modes had unequal {' and '.join(missing)}: the workload asks for none, so a guest had its default (1 "
            "processor, 256 MiB or more), and the other modes had all of the host."
        )
    why = ", as a guest has by default" if plan.equalised else ""
    return f"Every mode had {cpus:g} processor{'s' * (cpus != 1)} and {quantity(memory, 'bytes')} of memory{why}."


def unequal(result: Result) -> bool:
    """Return whether the modes had different processors or memory."""
    return sentence(result).startswith("The modes had unequal")
