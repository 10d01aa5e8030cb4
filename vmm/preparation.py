"""Everything that a start needs, created before the start is timed; repeatable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from images.kernels import kernel as kernels
from images.kernels import moduledisk, uncompressed
from images.kernels.kernel import Kernel
from images.store import store
from images.store.image import Image, ending
from vmctl import ids
from vmctl.errors import UnavailableError, VmctlError
from vmctl.instances import places
from vmctl.instances.folder import Home
from vmctl.instances.instance import Instance
from vmctl.keeping import health, held
from vmctl.linux import terminal, usernamespace
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.linux.filetree import write_atomic
from vmctl.net import Link
from vmctl.spec.workload import Workload
from vmm import (
    accelerator,
    boot,
    configure,
    confinement,
    described,
    disk,
    domain,
    files,
    guest,
    pmem,
    qemu,
    seed,
    streams,
    wayin,
)
from vmm.choices import Choices
from vmm.confinement import Cell
from vmm.launcher import Launcher
from vmm.saved import templates
from vmm.saved.origin import RESTORED, Origin, check, check_devices, check_host
from vmm.saved.origin import of as origin_of
from vmm.saved.saving import DISK, SEED, copy_sparse

# a system with cloud-init takes about 70 MiB, and a distribution's kernel and initramfs take more than ours
DEFAULT_MEMORY_BYTES = {boot.DIRECT: 256 * 1024**2, boot.SYSTEM: 512 * 1024**2, boot.DISK: 1024**3}

OWN_UID = "qemu_uid"  # key of the state: the user of QEMU
SYSTEM_STOP_S = 60.0  # services stop one after the other, which takes 5 s in an emulated guest


class Prepared(NamedTuple):
    """A guest that is ready to be started, by the child `launcher`."""

    machine: domain.Machine
    cell: Cell | None  # QEMU's confinement
    launcher: Launcher
    links: tuple[Link, ...] = ()
    origin: Origin | None = None  # a saved guest, with whose memory it begins


def prepare(
    inst: Instance, choices: Choices, *, owned: bool = False, attached: bool = False, tied: bool = False
) -> Prepared:
    """Create disk, seed, tap and cgroup and open libvirt.

    `owned`: the first caller of its terminal is its owner; `tied`: it ends with this process, as if it was attached.
    Raises VmctlError; everything that was made is in the journal.
    """
    try:
        return _prepare(inst, choices, owned=owned, attached=attached, tied=tied or attached)
    except OSError as error:  # most often a full disk
        raise VmctlError(f"the guest {inst.name} cannot be prepared: {error}") from error


def _prepare(inst: Instance, choices: Choices, *, owned: bool, attached: bool, tied: bool) -> Prepared:
    work = choices.of(inst.work)
    image = store.lease(inst.image, inst)
    inst.state.image_digest, inst.state.boot = image.digest, boot.kind(image, work)
    kernel = None if image.disk else kernels.lease(work.vm.kernel, inst)
    chosen = accelerator.choose(choices.accel, work.vm.kernel)
    inst.state.accelerator = chosen.name
    inst.state.warnings = []
    if chosen.name == "tcg":
        inst.state.warnings = [f"guest code is emulated (tcg), several times slower than KVM: {chosen.why}"]
    _record_ending(inst, image)
    if work.has_own_volumes():
        from images.layer import volumes

        volumes.prepare(work, image, inst, first=not inst.state.starts)
    inst.timeline.mark("image")
    health.record(inst, image.config.healthcheck, attached=attached)
    origin = _origin(inst, chosen.name)
    if inst.state.boot != boot.DIRECT:
        inst.state.own[wayin.SSH_PORT] = wayin.PORT
    with ExitStack() as stack:
        launcher = _launcher(inst, choices, chosen.name)
        stack.callback(launcher.close)
        _make_cgroup(inst)
        inst.timeline.mark("limits")
        links = places.take(inst)
        nics = tuple(domain.Nic(link.network.make_tap(link), link.mac, link.mtu) for link in links)
        inst.timeline.mark("cable")
        _make_disk(inst, image, origin)
        inst.timeline.mark("disk")
        is_warm = templates.wanted(work, inst.state.boot)
        _make_seed(inst, image, links, origin, padded=is_warm)
        inst.timeline.mark("seed")
        streams.make(inst, image, owned=owned, tied=tied)
        machine = machine_of(work, inst, image, chosen.name, kernel)._replace(nics=nics)
        if attached:
            machine = machine._replace(stdin=(f"{files.PORT_PREFIX}stdin", files.stdin(inst)))
        if is_warm and not origin:
            origin = _template(inst, machine)
        inst.state.warm = origin.kind if origin and origin.whole and not origin.resumes else ""
        if origin and origin.whole:
            machine = origin.machine(machine, files.stdin(inst))
            check_devices(origin, machine)
        if machine.volumes:
            _serve_volumes(inst)
        cell = None if choices.daemon_uri else _confine(inst, image, machine)
        machine = machine._replace(uid=cell.uid if cell else 0)
        why = f"the libvirt daemon {choices.daemon_uri} starts it, and vmctl cannot confine it"
        inst.state.weakened = [] if cell else [f"QEMU runs as root: {why}"]
        _remember(inst, image, machine)
        launcher.opened()
        stack.pop_all()
    return Prepared(machine, cell, launcher, links, origin if origin and origin.whole else None)


def _template(inst: Instance, machine: domain.Machine) -> Origin | None:
    """Return the template of a guest, if there is one; one that cannot be used is mentioned."""
    try:
        return templates.find(templates.key(machine), machine)
    except VmctlError as error:
        inst.state.warnings.append(f"{inst.name} boots: {error}")
        return None


def _origin(inst: Instance, accelerator: str) -> Origin | None:
    """Return the saved guest that this one begins with, checked; None if it boots as ever."""
    inst.state.own.pop(RESTORED, None)
    origin = origin_of(inst)
    if origin and origin.resumes:
        check_host(origin, emulator(), accelerator)
    elif origin and origin.whole:
        check(origin, emulator(), accelerator)
    return origin


def _make_seed(inst: Instance, image: Image, links: Sequence[Link], origin: Origin | None, *, padded: bool) -> None:
    """Write the seed, or copy that of the saved guest, which has mounted it; that of a suspended one stays.

    One of a guest that begins with a template, or becomes one, is `padded`: its size is one of few.
    """
    path = files.seed(inst)
    if origin is not None and origin.resumes:
        return
    if origin is not None and origin.whole:
        copy_sparse(origin.path(SEED), path)
        return
    seed.write_iso(path, configure.seed_of(inst.work, inst, image, links, configure.keys_of(inst)))
    if padded:
        os.truncate(path, -(-os.path.getsize(path) // templates.SEED_STEP_BYTES) * templates.SEED_STEP_BYTES)


def _serve_volumes(inst: Instance) -> None:
    from vmm.volumes import server

    uid = None
    if usernamespace.is_host_root():
        uid = inst.state.own[OWN_UID] = ids.take(inst, inst.state.own.get(OWN_UID))
    server.start(inst, uid)


def _record_ending(inst: Instance, image: Image) -> None:
    """Record how the guest is stopped; a system that is itself the workload shuts down on the default signal."""
    if inst.state.boot != boot.DIRECT:
        inst.state.stop_s = SYSTEM_STOP_S
    if boot.main_process(image, inst.work) is not None:
        ending(image, inst.work).record(inst.state)


def _confine(inst: Instance, image: Image, machine: domain.Machine) -> Cell:
    """Give QEMU's user the files of the guest, and return the confinement."""
    uid = None
    if _has_own_uid(machine.accelerator):
        uid = inst.state.own[OWN_UID] = ids.take(inst, inst.state.own.get(OWN_UID))
    else:
        inst.state.warnings.append("QEMU runs with the uid of this user, though in a file system with only its files")
    outputs = [path for _, path in machine.outputs]
    shared = [os.path.realpath(path) for path in shared_files(machine, image)]
    confinement.make_readable(shared)
    fifos = files.control(inst), f"{machine.console}.in", f"{machine.console}.out"
    own = (machine.disk, *fifos, *(path for _, path in machine.volumes))
    confinement.hand_over([machine.seed, *own], uid)
    own += (machine.ram,) if machine.ram else ()
    os.makedirs(files.qemu_root(inst), mode=0o700, exist_ok=True)
    return Cell(
        uid=uid,
        root=files.qemu_root(inst),
        read_only=(machine.emulator, machine.seed, *shared_files(machine, image)),
        writable=own,
        for_libvirt=(*outputs, files.libvirt_root(inst), files.capabilities()),
        # shared memory is a file, too
        file_bytes=max(disk.file_bytes(machine.disk, raw=not image.disk), shared_memory_bytes(machine)),
        threads=machine.vcpus + confinement.THREADS,
    )


def shared_memory_bytes(machine: domain.Machine) -> int:
    """Return the size of the guest's memory if that is a file, which the file servers of its volumes map, else 0."""
    return machine.memory_bytes if machine.volumes else 0


def _has_own_uid(accelerator: str) -> bool:
    """Return whether QEMU gets a separate id: of an ordinary user only the own groups may open /dev/kvm."""
    return usernamespace.is_host_root() or accelerator != "kvm"


def machine_of(
    work: Workload, home: Home, image: Image, accelerator: str, kernel: Kernel | None = None
) -> domain.Machine:
    """Return the guest's hardware, without a network; `kernel` is the one that a start has a lease of."""
    resources, kind = work.resources, boot.kind(image, work)
    port = files.PORT_PREFIX
    machine = domain.Machine(
        name=home.name,
        uuid=domain.machine_uuid(home.id),
        accelerator=accelerator,
        emulator=emulator(),
        vcpus=min(domain.vcpus(resources.cpus), host_cpus()),
        memory_bytes=resources.memory_bytes or DEFAULT_MEMORY_BYTES[kind],
        layers=tuple(layer.path for layer in image.stack),
        disk=files.disk(home),
        seed=files.seed(home),
        console=files.console(home),
        outputs=tuple((f"{port}{name}", files.fifo(home, name)) for name in ("marks", "stdout", "stderr")),
        control=(f"{port}control", files.control(home)),
        volumes=tuple((f"volume{number}", files.volume_socket(home, number)) for number in range(len(work.volumes))),
    )
    if kind == boot.DISK:
        return machine
    kernel = kernel or kernels.find(work.vm.kernel)
    is_warm = templates.wanted(work, kind)  # such a device cannot be saved
    dax = pmem.chosen(machine, kernel, len(work.joined())) if kind == boot.DIRECT and not is_warm else ()
    initrd = guest.initrd(kernel, volumes=bool(work.volumes), dax=bool(dax))
    machine = machine._replace(kernel=uncompressed.image(kernel), initrd=initrd, dax=dax)
    machine = machine._replace(firmware=qemu.quick_firmware())
    layers, secrets, live = len(machine.layers), held.needed(work), work.vm.console == "live"
    if kind == boot.DIRECT:
        machine = machine._replace(agent=(f"{port}agent", files.agent_port(home)))
        if work.tty or work.stdin_open:
            machine = machine._replace(stdin=(f"{port}stdin", files.stdin(home)))
        size = terminal.size(0) if work.tty else None
        cmdline = guest.kernel_args(
            layers,
            read_only=work.read_only,
            terminal=size,
            secrets=secrets,
            live=live,
            template=is_warm,
        )
        cmdline = f"{cmdline} {pmem.kernel_args(dax)}" if dax else cmdline
        return machine._replace(cmdline=cmdline, balloon=not is_warm)
    cmdline = guest.system_args(layers, machine.uuid, volumes=bool(work.volumes), secrets=secrets, live=live)
    return machine._replace(cmdline=cmdline, modules=moduledisk.build(kernel))


def _make_disk(inst: Instance, image: Image, origin: Origin | None) -> None:
    size_bytes = inst.work.resources.disk_bytes
    if origin is not None and origin.resumes:
        return
    if origin is not None:
        copy_sparse(origin.path(DISK), files.disk(inst))
        return
    if image.disk:
        disk.make_overlay(files.disk(inst), image.disk, size_bytes)
    else:
        disk.make(files.disk(inst), size_bytes or disk.DEFAULT_SIZE_BYTES)


def host_cpus() -> int:
    """Return how many processors this process can use: a guest with more of them is slower, or does not even boot."""
    return len(os.sched_getaffinity(0))


def shared_files(machine: domain.Machine, image: Image) -> list[str]:
    """Return the files of a guest that other guests may share: layers or disk, kernel, initrd and modules."""
    return [path for path in (*machine.layers, machine.modules, machine.kernel, machine.initrd, image.disk) if path]


def emulator() -> str:
    """Return the path of QEMU. Raises UnavailableError if it is not installed."""
    path = qemu.emulator()
    if path is None:
        raise UnavailableError("QEMU is not installed", hint="`vmctl doctor` shows how to install it")
    return path


def _launcher(inst: Instance, choices: Choices, accelerator: str) -> Launcher:
    """Record the domain in the journal and let a child open libvirt while the rest is created."""
    inst.journal.record("domain", uuid=domain.machine_uuid(inst.id))
    os.makedirs(inst.run_dir, mode=0o700, exist_ok=True)
    root = files.libvirt_root(inst)

    def open_uri() -> str:
        from vmm import connection

        return choices.daemon_uri or connection.make_root(root, threads)

    vcpus = min(domain.vcpus(inst.work.resources.cpus), host_cpus())
    threads = vcpus + confinement.THREADS if _has_own_uid(accelerator) else None  # else they count with the user's
    return Launcher(open_uri, emulator(), "kvm" if accelerator == "kvm" else "qemu")


def _make_cgroup(inst: Instance) -> None:
    """Create QEMU's cgroup: its memory is measured like a container's, and its quota limits fractions of a CPU.

    It has no memory limit: the guest's RAM is the limit, and a limit here would apply to QEMU's own memory too.
    """
    inst.journal.record("cgroup", name=inst.cgroup)
    Cgroup(inst.cgroup).create(Limits(cpus=inst.work.resources.cpus), inst.directory)


def _remember(inst: Instance, image: Image, machine: domain.Machine) -> None:
    """Save the data that later commands need: the domain, and the files that other instances may share."""
    write_atomic(files.domain(inst), domain.domain_xml(machine))
    inst.state.machine = described.values(machine)
    inst.state.own["shared"] = [*shared_files(machine, image), *([machine.ram] if machine.ram else [])]
    inst.state.own["balloon"] = machine.balloon
    inst.state.own["memory_bytes"], inst.state.own["vcpus"] = machine.memory_bytes, machine.vcpus
    inst.state.limits = {"pids": configure.pids(inst.work, image)}
