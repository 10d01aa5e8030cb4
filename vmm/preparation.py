"""Everything that a start needs and that is not the start: made before the boot clock runs, and repeatable."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import NamedTuple

from images import kernel as kernels
from images import store
from images.image import Image, process
from images.kernel import Kernel
from vmctl.errors import UnavailableError, VmctlError
from vmctl.host import network
from vmctl.host.cgroups import Cgroup, Limits
from vmctl.instance import Instance, write_atomic
from vmctl.workload import Workload
from vmm import accelerator, disk, domain, files, guest, keys, qemu, seed
from vmm.launcher import Launcher
from vmm.uri import daemon_uri

DEFAULT_MEMORY_BYTES = 256 * 1024**2


class Prepared(NamedTuple):
    """A guest that only needs to be started."""

    machine: domain.Machine
    launcher: Launcher


def prepare(inst: Instance) -> Prepared:
    """Make disk, seed, tap and cgroup and open libvirt. Raises VmctlError; the journal knows what was made."""
    try:
        return _prepare(inst)
    except OSError as error:  # a full disk, most of all
        raise VmctlError(f"the guest {inst.name} cannot be prepared: {error}") from error


def _prepare(inst: Instance) -> Prepared:
    work = inst.work
    image, kernel = store.find(work.image), kernels.find(work.vm.kernel)
    inst.state.image_digest = image.digest
    chosen = accelerator.choose(os.environ.get("VMCTL_ACCEL", "auto"), work.vm.kernel)
    inst.state.accelerator = chosen.name
    if chosen.name == "tcg":
        inst.warnings.append(f"guest code is emulated (tcg), several times slower than KVM: {chosen.why}")
    with ExitStack() as stack:
        launcher = _launcher(inst)
        stack.callback(launcher.close)
        _make_cgroup(inst)
        link = network.attach(inst) if work.network == "bridge" else None
        tap = network.make_tap(inst, link) if link else ""
        disk.make(files.disk(inst), work.resources.disk_bytes or disk.DEFAULT_SIZE_BYTES)
        seed.write_iso(files.seed(inst), seed_of(inst, image, link))
        _make_ports(inst)
        machine = machine_of(inst, image, kernel, guest.initrd(kernel))
        if link:
            machine = machine._replace(nic=domain.Nic(tap, link.mac))
        _remember(inst, machine)
        launcher.opened()
        stack.pop_all()
    return Prepared(machine, launcher)


def machine_of(inst: Instance, image: Image, kernel: Kernel, initrd: str) -> domain.Machine:
    """Return the guest's hardware, without a network."""
    resources = inst.work.resources
    port = files.PORT_PREFIX
    return domain.Machine(
        name=inst.name,
        uuid=domain.machine_uuid(inst.state.id),
        accelerator=inst.state.accelerator or "tcg",
        emulator=emulator(),
        vcpus=domain.vcpus(resources.cpus),
        memory_bytes=resources.memory_bytes or DEFAULT_MEMORY_BYTES,
        kernel=kernel.vmlinuz,
        initrd=initrd,
        cmdline=guest.KERNEL_ARGS,
        layers=tuple(layer.path for layer in image.layers),
        disk=files.disk(inst),
        seed=files.seed(inst),
        console=inst.console_log,
        outputs=(
            (f"{port}marks", files.marks(inst)),
            (f"{port}stdout", inst.stdout_log),
            (f"{port}stderr", inst.stderr_log),
        ),
        control=(f"{port}control", files.control(inst)),
    )


def seed_of(inst: Instance, image: Image, link: network.Link | None) -> seed.Seed:
    """Return the guest's configuration, with keys of its own."""
    client, host = keys.load_or_make(files.client_key(inst)), keys.load_or_make(files.host_key(inst))
    return seed.Seed(
        user_data=seed.user_data(client.public, host.private, host.public, seed_files(inst.work, image)),
        meta_data=seed.meta_data(f"vmctl-{inst.state.id}", inst.name),
        network_config=seed.network_config(
            seed.Address(link.mac, link.address, link.prefix, link.gateway) if link else None
        ),
    )


def seed_files(work: Workload, image: Image) -> list[seed.SeedFile]:
    """Return what is to be written in the guest: the workload's files, its limits and what runs it."""
    main = process(image, work)
    found = [seed.SeedFile(file.path, file.content.encode(), file.mode) for file in work.files]
    if work.resources.pids is not None:
        found.append(seed.limits_file(work.resources.pids))
    return [*found, seed.workload_script(seed.workload_words(main.argv, main.env, main.workdir, main.user))]


def emulator() -> str:
    """Return the path of QEMU. Raises UnavailableError where there is none."""
    path = qemu.emulator()
    if path is None:
        raise UnavailableError("QEMU is not installed", hint="`vmctl doctor` says how to get it")
    return path


def _launcher(inst: Instance) -> Launcher:
    """Journal the domain and let a child open libvirt, while the rest is being made."""
    inst.journal.record("domain", uuid=domain.machine_uuid(inst.state.id))
    os.makedirs(inst.run_dir, mode=0o700, exist_ok=True)
    root = files.libvirt_root(inst)

    def open_uri() -> str:
        from vmm import connection

        return daemon_uri() or connection.make_root(root)

    return Launcher(open_uri, emulator(), "kvm" if inst.state.accelerator == "kvm" else "qemu")


def _make_cgroup(inst: Instance) -> None:
    """QEMU lives in a cgroup as a container does: the same probe for both, and a quota for a fraction of a CPU.

    No memory limit: the guest's RAM is one, and the limit would strike QEMU's own memory instead.
    """
    inst.journal.record("cgroup", name=inst.name)
    Cgroup(inst.name).create(Limits(cpus=inst.work.resources.cpus))


def _make_ports(inst: Instance) -> None:
    """Make the FIFO into the guest, and forget what an earlier start reported."""
    with suppress(FileExistsError):
        os.mkfifo(files.control(inst), 0o600)
    for path in (files.marks(inst), files.killed(inst), inst.stdout_log, inst.stderr_log, inst.console_log):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _remember(inst: Instance, machine: domain.Machine) -> None:
    """Keep what later commands want to know: the domain, and which of its files other instances share."""
    write_atomic(files.domain(inst), domain.domain_xml(machine))
    inst.state.extra["shared"] = [*machine.layers, machine.kernel, machine.initrd]
