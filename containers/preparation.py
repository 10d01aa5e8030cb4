"""From an instance to a `Launch`: objects that are made before the start is timed, and values that are computed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress

from containers import identity, mountplan, seccomp
from containers.launch import NAMESPACES, Launch, Written
from images.layer import mounts
from images.store import store
from images.store.image import Image, data_folders, ending, process, provided
from vmctl import net, trace
from vmctl.errors import UnavailableError
from vmctl.instances import places
from vmctl.instances.instance import Instance
from vmctl.limits import UNLIMITED
from vmctl.linux import devices, syscalls, usernamespace
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.named import TYPE_CHECKING
from vmctl.net import Link
from vmctl.spec import rules
from vmctl.spec.workload import DEFAULT_PIDS, File, Volume, Workload

if TYPE_CHECKING:
    from vmctl.keeping.runs import Keep


def prepare(inst: Instance, *, namespaced: bool, tty: bool, attached: bool) -> Launch:
    """Mount the layers, create the writable layer and the cgroup, reserve the address; return the launch.

    Raises errors of vmctl.errors, or OSError. Everything it makes is in the journal.
    """
    image = of_clone(inst, store.lease(inst.image, inst))
    inst.state.image_digest, inst.state.warnings, inst.state.weakened = image.digest, [], []
    ending(image, inst.work).record(inst.state)
    if inst.work.has_own_volumes():
        from images.layer import volumes

        volumes.prepare(inst.work, image, inst, first=not inst.state.starts)
    inst.state.health = {}
    if inst.work.health or image.config.healthcheck:
        from vmctl.keeping import health

        health.record(inst, image.config.healthcheck, attached=attached)
    flags = namespaces(inst.work) if namespaced else 0
    layers = [mounts.mount_layer(layer, inst) for layer in image.stack]
    inst.timeline.mark("image")
    make_folders(inst, layers[-1])
    inst.timeline.mark("disk")
    if not namespaced:
        inst.journal.record("mount", path=inst.path("rootfs"))
    if not flags & syscalls.CLONE_NEWNET:
        inst.state.address = "127.0.0.1"
    links = places.take(inst) if namespaced else ()
    inst.timeline.mark("cable")
    cgroup = Cgroup(inst.cgroup)
    inst.journal.record("cgroup", name=inst.cgroup)  # after the objects its processes use: undone before them
    cgroup.create(_enforceable(inst, cgroup), inst.directory)
    inst.timeline.mark("limits")
    work, secrets = _with_held(inst.work)
    ready = launch(work, image, layers, inst.directory, cgroup, links, flags)._replace(tty=tty, secrets=secrets)
    ready = _hiding(ready, inst.work, work)
    ready = ready._replace(provided=_provided(inst, links, flags), keep=_keep(inst))
    if namespaced and rules.neighbour(work):
        from containers import beside

        ready = beside.prepare(inst, ready)
    return _with_mounts(inst, ready) if namespaced or ready.volumes else ready


def of_clone(inst: Instance, image: Image) -> Image:
    """Return the image with the layers of the snapshot, if the instance is a clone."""
    if inst.state.snapshot is None:
        return image
    from containers import kept

    return kept.prepared(inst, image)


def _with_held(work: Workload) -> tuple[Workload, tuple[Written, ...]]:
    """Return a workload with the variables of its files, and its secrets."""
    if not (work.secrets or work.env_file):
        return work, ()
    from vmctl.keeping import held

    values = held.read(work)
    secrets = tuple(Written(one.name, values.files[one.name], one.mode) for one in work.secrets)
    return held.with_variables(work, values), secrets


def _hiding(launch: Launch, recorded: Workload, work: Workload) -> Launch:
    """Return a launch that shows no value of a variable that is not in the record of the workload."""
    if work is recorded:
        return launch
    return launch._replace(process=launch.process._replace(hidden=frozenset(work.env.keys() - recorded.env.keys())))


def _keep(inst: Instance) -> Keep | None:
    work = inst.work
    if not (work.secrets or work.env_file or inst.state.health or inst.state.removes or work.restart.policy != "no"):
        return None
    from vmctl.keeping import runs

    return runs.keep(inst)


def _provided(inst: Instance, links: tuple[Link, ...], flags: int) -> tuple[File, ...]:
    """Return the files that the image leaves to us; only in the host's network the host's name servers are in reach."""
    name_servers = net.name_servers(links)
    if not flags & syscalls.CLONE_NEWNET:
        with suppress(OSError), open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            name_servers = file.read(1 << 16)
    hostname = inst.work.hostname or inst.work.name if flags & syscalls.CLONE_NEWUTS else os.uname().nodename
    return provided(inst.work, hostname, inst.state.address, name_servers, net.hosts(links))


def _with_mounts(inst: Instance, launch: Launch) -> Launch:
    from containers import trees

    if not launch.namespaces:
        return trees.volumes(launch)
    more: tuple[devices.Device, ...] = ()
    if inst.work.devices:
        from containers import hostdevices

        more = hostdevices.rules(inst.work)
        inst.state.weakened += hostdevices.weaknesses(inst.work)
    inst.state.weakened += _weaknesses(launch, more)
    launch = trees.make(inst, launch, own_users=bool(launch.namespaces & syscalls.CLONE_NEWUSER))
    return hostdevices.added(inst, launch) if more else launch


def _weaknesses(launch: Launch, allowed: Sequence[devices.Device]) -> Iterator[str]:
    """Yield a text for each barrier that the workload has asked to leave out, or that cannot be set up here."""
    if not launch.namespaces & syscalls.CLONE_NEWUSER:
        yield "userns: host: root in the container has the ids of root outside of it"
    if not launch.namespaces & syscalls.CLONE_NEWNET and launch.joins < 0:
        yield "network: host: the container reaches every service of the host, and can take its ports"
    if more := sorted(identity.names(launch.capabilities or 0) - set(identity.DEFAULT)):
        yield f"cap_add: {', '.join(more)}: more of the kernel is in reach"
    if not launch.seccomp:
        yield "no system call is filtered (seccomp: unconfined, or an architecture without a profile)"
    if not devices.restrict(launch.cgroup, allowed) and usernamespace.is_host_root():
        yield "any device can be opened if there is a node of it: this host cannot restrict them by control groups"


def make_folders(inst: Instance, top: str) -> None:
    """Create the overlay's folders; the upper one gets owner and mode of the image's root, which are seen inside."""
    if (size_bytes := inst.work.resources.disk_bytes) is not None:
        from containers import disk

        disk.make(inst, size_bytes)
    if inst.state.starts:  # what the workload has made of its root stays
        return
    for folder in ("upper", "work", "rootfs"):
        os.makedirs(inst.path(folder), mode=0o755, exist_ok=True)
        if trace.on:
            trace.step(f"mkdir -p {inst.path(folder)}")
    status = os.stat(top)
    os.chown(inst.path("upper"), status.st_uid, status.st_gid)
    os.chmod(inst.path("upper"), stat.S_IMODE(status.st_mode))  # independent of the caller's umask


def resume(inst: Instance, *, namespaced: bool) -> Launch:
    """Return the launch of a running instance, for another process in it; makes nothing."""
    from vmctl import userns

    image = store.find(inst.image)
    flags = namespaces(inst.work) if namespaced else 0
    first_id = userns.first_id(inst)
    if first_id is None:  # its workload may be of a vmctl in which `host` was the default
        flags &= ~syscalls.CLONE_NEWUSER
    work = inst.work
    if work.env_file:
        from vmctl.keeping import held

        work = held.with_variables(work, held.of(inst))
    ready = launch(work, image, [], inst.directory, Cgroup(inst.cgroup), (), flags)._replace(first_id=first_id)
    if namespaced and rules.neighbour(work):
        ready = ready._replace(namespaces=flags | syscalls.CLONE_NEWNET)
    return _hiding(ready, inst.work, work)


def launch(
    work: Workload,
    image: Image,
    layers: list[str],
    directory: str,
    cgroup: Cgroup,
    links: tuple[Link, ...],
    flags: int,
) -> Launch:
    """Return the launch of a workload; makes nothing."""
    _load_for_inside(work)
    capabilities = identity.capability_mask(work.container.cap_add, work.container.cap_drop) if flags else None
    filtered = capabilities is not None and work.container.seccomp == "default"
    return Launch(
        namespaces=flags,
        cgroup=cgroup,
        root=mountplan.root(layers, directory),
        steps=tuple(_steps(cgroup, flags, work)),
        volumes=_volumes(work, directory),
        files=tuple(Written(file.path, file.data(), file.mode) for file in work.files),
        provided=(),
        folders=data_folders(image),
        process=process(image, work),
        hostname=work.hostname or work.name,
        links=links,
        init=reaper() if work.init else None,
        tty=False,
        capabilities=capabilities,
        first_id=None,
        tree=None,
        tmpfs=work.tmpfs,
        read_only=work.read_only,
        volume_trees=(),
        secrets=(),
        keep=None,
        joins=-1,
        seccomp=seccomp.default_filter(capabilities) if filtered and capabilities is not None else b"",
    )


def _load_for_inside(work: Workload) -> None:
    """Import the modules that only some workloads need inside, which has to happen before the root is entered."""
    if work.tmpfs:
        import containers.memory
    if work.ulimits:
        import containers.ulimits
    if work.secrets:
        import containers.secretfiles
    if trace.on:
        import containers.traced  # noqa: F401


def _volumes(work: Workload, directory: str) -> tuple[Volume, ...]:
    if not work.volumes:
        return ()
    from vmctl.volumes import places

    return places.located(work, directory)


def namespaces(work: Workload) -> int:
    """Return the clone flags of a container."""
    shared = syscalls.CLONE_NEWNET if work.network == "host" or rules.neighbour(work) else 0
    added = syscalls.CLONE_NEWUSER if work.container.userns == "auto" else 0
    return NAMESPACES & ~shared | added


def asked_limits(work: Workload) -> Limits:
    """Return the limits of a cgroup that the workload asks for."""
    return Limits(work.resources.cpus, work.resources.memory_bytes, work.resources.pids)


def limits(work: Workload) -> Limits:
    """Return the limits of the workload's cgroup, with the default ones."""
    return asked_limits(work)._replace(pids=work.resources.pids or DEFAULT_PIDS)


def _enforceable(inst: Instance, cgroup: Cgroup) -> Limits:
    """Return the limits of an instance without a default that cannot be enforced, which is noted."""
    wanted = limits(inst.work)
    if inst.work.resources.pids is None and "pids" not in cgroup.folders:
        inst.state.weakened.append(UNLIMITED)
        return wanted._replace(pids=None)
    return wanted


def reaper() -> str:
    """Return the path of a static init that reaps zombies. Raises UnavailableError if it is not installed."""
    from vmctl.which import which

    path = which("tini-static")
    if path is None:
        raise UnavailableError("`init: true` needs tini-static", hint="`vmctl doctor` shows how to install it")
    return path


def _steps(cgroup: Cgroup, flags: int, work: Workload) -> list[mountplan.Step]:
    own_users = bool(flags & syscalls.CLONE_NEWUSER) or not usernamespace.is_host_root()
    steps = list(
        mountplan.kernel_file_systems(
            own_mounts=bool(flags) or own_users,
            sysfs=bool(flags & syscalls.CLONE_NEWNET) or not own_users,
            shared=own_users and not flags,
            shm_bytes=work.shm_size_bytes,
        )
    )
    if flags:
        steps += mountplan.cgroup_file_systems(cgroup.layout.version, sorted(cgroup.folders))
        steps += mountplan.network_settings() if flags & syscalls.CLONE_NEWNET else ()
        if work.sysctls:
            from vmctl.spec import inside

            steps += [mountplan.Setting(inside.path(name), value) for name, value in work.sysctls.items()]
        steps += mountplan.protections()
    return steps
