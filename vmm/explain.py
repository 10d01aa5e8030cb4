"""The steps of a start on the host, each with its raw command and the reason, for `vmctl up --explain`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from tempfile import TemporaryDirectory

from images.kernels import kernel as kernels
from images.kernels import moduledisk
from images.store import store
from images.store.image import Image
from vmctl import ids
from vmctl.backend import Step
from vmctl.instances.folder import Home
from vmctl.linux import syscalls
from vmctl.net import Link, preview
from vmctl.spec.workload import Workload
from vmm import accelerator, boot, configure, confinement, disk, domain, files, guest, launcher, preparation, seed
from vmm.choices import Choices

KEY = "ssh-ed25519 <made at the start>"


def steps(work: Workload, choices: Choices) -> Iterator[Step]:
    """Yield the steps in their order; changes nothing."""
    image = store.find(work.image)
    home = Home(work.name, "0" * 8)
    links = preview(work, home)
    kind = boot.kind(image, work)
    machine = preparation.machine_of(work, home, image, _accelerator(choices.accel, work.vm.kernel))
    if kind == boot.DISK:
        yield from _whole_disk(work, home, image)
    else:
        yield from _artefacts(work, home, image, kind)
    yield from map(_tap, links)
    yield _seed(work, home, image, links)
    if work.volumes:
        yield from _volumes(work, home)
    yield from _domain(machine, links)
    if kind != boot.DIRECT:
        yield Step("cloud-init", _AWAITED, "`up` waits until it has finished; if it has errors, the start fails")


_AWAITED = "cloud-init status --wait --long"


def _artefacts(work: Workload, home: Home, image: Image, kind: str) -> Iterator[Step]:
    for number, layer in enumerate(image.stack):
        yield Step(f"image layer {number}", layer.path, "attached read-only; a container mounts the same file")
    kernel = kernels.find(work.vm.kernel)
    yield Step("kernel", kernel.vmlinuz, f"Linux {kernel.release}, booted directly: no boot loader, no boot disk")
    if kind == boot.DIRECT:
        why = "busybox, modules, the agent for exec, and our init: mounts the layers, applies the seed"
        yield Step("initrd", guest.initrd(kernel, volumes=bool(work.volumes)), why)
    else:
        why = "busybox, modules and our init: mounts the layers and executes the image's init (switch_root)"
        yield Step("initrd", guest.initrd(kernel, volumes=bool(work.volumes)), why)
        yield Step("modules", moduledisk.build(kernel), "the kernel's modules, for udev: the lowest read-only layer")
    size_bytes = work.resources.disk_bytes or disk.DEFAULT_SIZE_BYTES
    path = files.disk(home)
    yield Step(
        "writable disk",
        f"truncate -s {size_bytes} {path}; {shlex.join(disk.command(path, size_bytes))}",
        "sparse: the upper directory of the guest's overlay, under 1 MiB until something is written",
    )


def _whole_disk(work: Workload, home: Home, image: Image) -> Iterator[Step]:
    yield Step("image disk", image.disk, "attached read-only, with its own boot loader, kernel and init")
    command = disk.overlay_command(files.disk(home), image.disk, work.resources.disk_bytes)
    yield Step("writable disk", shlex.join(command), "contains the differences from the image, 200 KiB at first")


def _volumes(work: Workload, home: Home) -> Iterator[Step]:
    from vmctl.volumes import places
    from vmm import volumes

    for number, volume in enumerate(places.found(work, home.directory)):
        line = f"{shlex.join(volumes.command(3))} 3<>{files.volume_socket(home, number)}"
        mounted = f"mount --rbind -o {'ro,' if volume.read_only else ''}nosuid,nodev {volume.source} /volume"
        why = f"the file server of {volume.target}, as root of a user namespace with nothing but the volume"
        yield Step(f"volume {number}", f"{mounted}\n{line}", why)


def _tap(link: Link) -> Step:
    commands = link.network.tap_command(link)
    return Step("tap device", commands, "in the network namespace of the bridge; the host's network is not changed")


def _seed(work: Workload, home: Home, image: Image, links: Sequence[Link]) -> Step:
    written = configure.seed_of(work, home, image, links, seed.Identity(KEY, "<made at the start>", KEY))
    text = "\n".join(f"# {name}\n{content}" for name, content in written.files().items())
    return Step(f"cloud-init seed {files.seed(home)}", text, "an ISO labelled cidata: the guest's only configuration")


def _domain(machine: domain.Machine, links: Sequence[Link]) -> Iterator[Step]:
    nics = tuple(domain.Nic(link.device, link.mac, link.mtu) for link in links)
    machine = machine._replace(uid=ids.FIRST, nics=nics)
    xml = domain.domain_xml(machine)
    yield Step("domain XML", xml, "the guest's hardware, given to libvirt")
    yield Step("confinement", confinement.summary(machine.uid), "QEMU emulates devices for a hostile guest")
    why = "the command that libvirt executes, in the namespace of the bridge and the cgroup, with -S until it is set up"
    yield Step("QEMU", _command_line(machine.emulator, xml), why)


def _command_line(emulator: str, xml: str) -> str:
    """Return libvirt's command line for QEMU, one option per line, from a driver in a temporary root."""
    with TemporaryDirectory(prefix="vmctl-") as root:

        def translate() -> str:
            from vmm import connection

            syscalls.unshare(syscalls.CLONE_NEWNET)  # libvirt makes a tap even to translate
            return connection.Connection(connection.make_root(root)).command_line(xml)

        line = launcher.ask(translate)
    return line[line.index(emulator) :].replace(" -", " \\\n  -")


def _accelerator(requested: str, kernel_name: str) -> str:
    """Return the accelerator that a start would use, as far as that is known without a probe."""
    known = accelerator.known(kernel_name) if requested == "auto" else None
    return known.name if known else requested.replace("auto", "kvm")
