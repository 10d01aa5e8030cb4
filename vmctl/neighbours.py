"""The container whose network namespace another one shares (`network: container:NAME`).

Both see the same interfaces, addresses and ports. The namespace belongs to the user namespace of the first container
(user_namespaces(7)), so the second one cannot change it. It stays as long as one of both runs: if the first one is
started again, it gets a new one.
"""

from __future__ import annotations

from vmctl import ends
from vmctl.backend import Backend, Problem
from vmctl.errors import StateError, UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.spec import rules
from vmctl.spec.workload import Workload

_HINT = "put both on one network, where each is reached by its name"


def find(work: Workload) -> Instance:
    """Return the container whose network namespace a workload shares. Raises NotFoundError if it does not exist.

    Raises UnavailableError if it has no network namespace on this host, StateError if it does not run.
    """
    name = rules.neighbour(work)
    inst = instance.load(name)
    backend = ends.backend_of(inst)
    if backend.features.own_kernel:
        raise UnavailableError(
            f"network: {rules.BESIDE}{name}: {name} is a guest, with a network of its kernel", hint=_HINT
        )
    if not backend.features.own_network or inst.work.network == "host":
        raise UnavailableError(f"network: {rules.BESIDE}{name}: {name} has the host's network", hint="`network: host`")
    if (found := ends.status(inst, backend)) != "running":
        raise StateError(f"network: {rules.BESIDE}{name}: {name} is {found}", hint=f"`vmctl start {name}`")
    check = work.health
    probed = (work.ready and (work.ready.http or work.ready.tcp)) or (check and (check.http or check.tcp))
    if probed and inst.state.address is None:
        raise UnavailableError(f"network: {rules.BESIDE}{name}: no probe reaches {name}: it is in no network")
    return inst


def problems(work: Workload, backend: Backend) -> list[Problem]:
    """Return what stands in the way of a start with this backend, which has networks."""
    if backend.features.own_kernel:
        return [Problem(f"network: {work.network}: a guest has its own kernel, and so its own network", _HINT)]
    try:
        find(work)
    except VmctlError as error:
        return [Problem(str(error), error.hint, type(error))]
    return []
