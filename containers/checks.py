"""Check whether a workload can run as a container on this host; reports all problems before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from containers import identity, preparation
from images.store import store
from images.store.image import architecture, check_files, process
from vmctl.backend import Problem
from vmctl.errors import VmctlError
from vmctl.linux import syscalls, usernamespace
from vmctl.linux.cgroups import Cgroup
from vmctl.spec.workload import Port, Workload


def problems(work: Workload, *, namespaced: bool) -> Iterator[Problem]:
    """Yield each problem; changes nothing."""
    if os.geteuid() != 0:
        yield Problem("this process is not in the namespaces of its user", hint="call vmctl.holder.enter() first")
    rights = _capabilities_inside if namespaced else _capabilities
    for check in (_image, _cgroups, _volumes, _devices, rights, _init, _ulimits):
        try:
            check(work)
        except VmctlError as error:
            yield Problem(str(error), error.hint, type(error))
    if not namespaced and work.network not in ("bridge", "host"):
        what = work.network if isinstance(work.network, str) else "with a mapping"
        yield Problem(f"network: {what} needs a network namespace, and mode host has none", hint="use --mode container")
    if not namespaced:
        yield from _host_keys(work)
    if not namespaced or work.network == "host":
        yield from _taken_ready_port(work)
    if work.resources.disk_bytes is not None:
        from containers import disk

        yield from filter(None, [disk.problem(work.resources.disk_bytes)])


def _host_keys(work: Workload) -> Iterator[Problem]:
    """Yield a problem for each key that only a separate namespace can honour."""
    if work.devices:
        yield Problem("devices: mode host has no list of devices that can be opened", hint="use --mode container")
    for key, value in (
        *(("hostname", work.hostname), ("tmpfs", work.tmpfs), ("shm_size", work.shm_size_bytes)),
        *(("sysctls", work.sysctls), ("extra_hosts", work.extra_hosts)),
    ):
        if value:
            yield Problem(f"{key}: mode host has no namespaces, so it would change the host", "use --mode container")


def _taken_ready_port(work: Workload) -> Iterator[Problem]:
    """Yield a problem if the probe's port is in use on the host: the probe would take its user for the workload."""
    if work.ready is None:
        return
    port = work.ready.http.port if work.ready.http else work.ready.tcp
    if port is not None:
        from vmctl.net import ports

        for error in ports.refusals([Port("127.0.0.1", port, port)]):
            yield Problem(str(error), error.hint)


def _image(work: Workload) -> None:
    image = store.find(work.image)
    check_files(image)
    if image.disk:
        raise VmctlError(
            f"the image {work.image} is a disk, which only a virtual machine can boot",
            hint="use --mode vm, or import only its files: vmctl image import --as-layer",
        )
    if image.architecture != architecture():
        raise VmctlError(f"the image {work.image} is for {image.architecture}, this machine is {architecture()}")
    user = process(image, work).user
    if usernamespace.ids() == 1 and not set(user.split(":")) <= {"", "0", "root"}:
        raise VmctlError(
            f"the user {user} cannot exist: this user of the host has no subordinate ids, only root is mapped",
            hint="`vmctl doctor` shows how to get them",
        )


def _cgroups(work: Workload) -> None:
    Cgroup(work.name).check(preparation.asked_limits(work))


def _capabilities(work: Workload) -> None:
    identity.capability_mask(work.container.cap_add, work.container.cap_drop)


def _capabilities_inside(work: Workload) -> None:
    """Check that this process can give the capabilities: outside of a new user namespace it has to have them."""
    asked = identity.names(identity.capability_mask(work.container.cap_add, work.container.cap_drop))
    if preparation.namespaces(work) & syscalls.CLONE_NEWUSER or not (lacking := sorted(asked - identity.bounding())):
        return
    raise VmctlError(
        f"container.userns: host: vmctl has no capability {', '.join(lacking)} here, so it cannot give it",
        hint="use `userns: auto`, or name the others: `cap_drop: [ALL]`, `cap_add: [...]`",
    )


def _volumes(work: Workload) -> None:
    if work.volumes:
        from vmctl.volumes import places

        places.check(work)


def _devices(work: Workload) -> None:
    if work.devices:
        from containers import hostdevices

        hostdevices.check(work)


def _init(work: Workload) -> None:
    if work.init:
        preparation.reaper()


def _ulimits(work: Workload) -> None:
    if work.ulimits:
        from containers import ulimits

        ulimits.raise_hard(work.ulimits)
