"""The ports that an instance has on the host: the numbers of free ones are known when they are published."""

from __future__ import annotations

from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import Port

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmctl.instances.instance import Instance

_KEY = "published"  # in State.own


def record(inst: Instance, ports: Iterable[Port]) -> None:
    """Record the ports of the present run; the caller saves the state."""
    inst.state.own[_KEY] = [list(port[:4]) for port in ports]


def of(inst: Instance) -> tuple[Port, ...]:
    """Return the ports of the last run one by one; those of the workload if none was recorded."""
    if recorded := inst.state.own.get(_KEY):
        return tuple(Port(*port) for port in recorded)
    return tuple(one for port in inst.work.ports for one in port.each())
