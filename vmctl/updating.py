"""Change the limits of an instance, for now and for its later starts."""

from __future__ import annotations

from vmctl import backends, engine, limits
from vmctl.backend import HasUpdate
from vmctl.errors import UnavailableError
from vmctl.instances import eventlog
from vmctl.instances.instance import WORKLOAD, Instance
from vmctl.linux import filetree
from vmctl.spec.workload import Resources


def update(inst: Instance, wanted: Resources) -> None:
    """Change the limits that are not None. Raises UnavailableError, StateError, VmctlError."""
    backend = backends.load(inst.state.mode, inst.state.options)
    with inst.locked():
        given = {name: value for name, value in wanted._asdict().items() if value is not None}
        work = inst.work._replace(resources=inst.work.resources._replace(**given))
        # without its ports and its probe, whose port it may have taken itself
        if problems := backend.check(work._replace(image=inst.image, ports=(), ready=None)):
            raise UnavailableError(f"{inst.name} cannot have these limits: {problems[0].text}", hint=problems[0].hint)
        inst.work = work
        if engine.status(inst, backend) == "running":
            inst.state.limits.update(backends.ability(backend, HasUpdate).update(inst, wanted))
            limits.check(inst)
        filetree.write_atomic(inst.path(WORKLOAD), work.to_json())
        inst.save()
        eventlog.note(inst, "update")
