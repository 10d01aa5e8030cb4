"""Everything that a start needs, created before the start is timed; repeatable."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

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
from vmctl.keeping import health, held, runs
from vmctl.linux import processes, terminal, usernamespace
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.linux.filetree import write_atomic
from vmctl.logs.logwriter import TIMES
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
    marks,
    qemu,
    recorder,
    seed,
    watch,
    wayin,
)
from vmm.choices import Choices
from vmm.confinement import Cell
from vmm.launcher import Launcher

# a system with cloud-init takes about 70 MiB, and a distribution's kernel and initramfs take more than ours
DEFAULT_MEMORY_BYTES = {boot.DIRECT: 256 * 1024**2, boot.SYSTEM: 512 * 1024**2, boot.DISK: 1024**3}

OWN_UID = "qemu_uid"  # key of the state: the user of QEMU
LOG_BYTES = 1 << 16  # of errors of the file servers, which a guest may cause at will
SYSTEM_STOP_S = 60.0  # services stop one after the other, which takes 5 s in an emulated guest


def prepare(
    inst: Instance, choices: Choices, *, owned: bool = False, attached: bool = False
) -> tuple[domain.Machine, Cell | None, Launcher]:
    """Create disk, seed, tap and cgroup and open libvirt; `owned`: the first caller of its terminal is its owner.

    Return the machine, QEMU's confinement, and the child that can start it.

    Raises VmctlError; everything that was made is in the journal.
    """
    try:
        return _prepare(inst, choices, owned=owned, attached=attached)
    except OSError as error:  # most often a full disk
        raise VmctlError(f"the guest {inst.name} cannot be prepared: {error}") from error


def _prepare(
    inst: Instance, choices: Choices, *, owned: bool, attached: bool
) -> tuple[domain.Machine, Cell | None, Launcher]:
    work = inst.work
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
        _make_disk(inst, image)
        inst.timeline.mark("disk")
        seed.write_iso(files.seed(inst), configure.seed_of(work, inst, image, links, configure.keys_of(inst)))
        inst.timeline.mark("seed")
        _make_ports(inst, image, owned=owned)
        machine = machine_of(work, inst, image, chosen.name, kernel)._replace(nics=nics)
        if machine.volumes:
            _serve_volumes(inst)
        cell = None if choices.daemon_uri else _confine(inst, image, machine)
        machine = machine._replace(uid=cell.uid if cell else 0)
        why = f"the libvirt daemon {choices.daemon_uri} starts it, and vmctl cannot confine it"
        inst.state.weakened = [] if cell else [f"QEMU runs as root: {why}"]
        _remember(inst, image, machine)
        launcher.opened()
        stack.pop_all()
    return machine, cell, launcher


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
    os.makedirs(files.qemu_root(inst), mode=0o700, exist_ok=True)
    return Cell(
        uid=uid,
        root=files.qemu_root(inst),
        read_only=(machine.emulator, machine.seed, *shared_files(machine, image)),
        writable=own,
        for_libvirt=(*outputs, files.libvirt_root(inst), files.capabilities()),
        # shared memory is a file, too
        file_bytes=max(disk.file_bytes(machine.disk, raw=bool(machine.kernel)), shared_memory_bytes(machine)),
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
    initrd = guest.initrd(kernel, volumes=bool(work.volumes))
    machine = machine._replace(kernel=uncompressed.image(kernel), initrd=initrd, firmware=qemu.quick_firmware())
    layers, secrets, live = len(machine.layers), held.needed(work), work.vm.console == "live"
    if kind == boot.DIRECT:
        machine = machine._replace(agent=(f"{port}agent", files.agent_port(home)))
        if work.tty or work.stdin_open:
            machine = machine._replace(stdin=(f"{port}stdin", files.stdin(home)))
        size = terminal.size(0) if work.tty else None
        cmdline = guest.kernel_args(layers, read_only=work.read_only, terminal=size, secrets=secrets, live=live)
        return machine._replace(cmdline=cmdline)
    cmdline = guest.system_args(layers, machine.uuid, volumes=bool(work.volumes), secrets=secrets, live=live)
    return machine._replace(cmdline=cmdline, modules=moduledisk.build(kernel))


def _make_disk(inst: Instance, image: Image) -> None:
    size_bytes = inst.work.resources.disk_bytes
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


def _make_ports(inst: Instance, image: Image, *, owned: bool) -> None:
    """Create the FIFOs and the files of the guest's reports and logs, and start the recorder that fills the files."""
    size_bytes = inst.work.logs.size_bytes
    streams = (
        (f"{files.console(inst)}.out", inst.console_log, size_bytes, False),
        (files.fifo(inst, "marks"), files.marks(inst), marks.MOST_BYTES, True),
        (files.fifo(inst, "stdout"), inst.stdout_log, size_bytes, False),
        (files.fifo(inst, "stderr"), inst.stderr_log, size_bytes, False),
        *([(files.fifo(inst, "volumes"), files.volumes_log(inst), LOG_BYTES, True)] if inst.work.volumes else []),
    )
    for path in (files.control(inst), f"{files.console(inst)}.in", *(fifo for fifo, *_ in streams)):
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
    files.mark_killed(inst, killed=False)
    for path in (files.marks(inst), f"{files.marks(inst)}{TIMES}", files.agent(inst)):
        with suppress(FileNotFoundError):  # of an earlier start
            os.unlink(path)
    for _, path, *_ in streams:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if inst.state.starts:
        with open(inst.console_log, "a", encoding="ascii") as file:
            file.write(f"\n{watch.AGAIN}\n")
    has_agent = inst.state.boot == boot.DIRECT
    agent = (files.agent(inst), files.agent_port(inst)) if has_agent else None
    served, work = None, inst.work
    if work.tty or work.stdin_open:
        served = recorder.Served(inst.run_dir, files.stdin(inst), files.control(inst), work.tty, owned)
    keep = runs.keep(inst)
    secret = held.in_memory(configure.secrets(inst.work, image)) if held.needed(inst.work) else -1
    try:
        pid, go = recorder.start(streams, agent, served, keep, (secret, files.control(inst)) if secret >= 0 else None)
    finally:
        for fd in (keep.held, secret):
            if fd >= 0:
                os.close(fd)
    try:
        if keep.held >= 0:
            held.record(inst, pid, keep.held)
        inst.state.supervisor_pid, inst.state.supervisor_start = pid, processes.start_time(pid)
        inst.journal.record_process(pid, inst.state.supervisor_start, "recorder")
        os.write(go, b"g")
    finally:
        os.close(go)


def _remember(inst: Instance, image: Image, machine: domain.Machine) -> None:
    """Save the data that later commands need: the domain, and the files that other instances may share."""
    write_atomic(files.domain(inst), domain.domain_xml(machine))
    inst.state.machine = described.values(machine)
    inst.state.own["shared"] = shared_files(machine, image)
    inst.state.own["memory_bytes"], inst.state.own["vcpus"] = machine.memory_bytes, machine.vcpus
    inst.state.limits = {"pids": configure.pids(inst.work, image)}
