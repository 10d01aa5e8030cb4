"""The steps of a start on the host, each with its raw command and the reason, for `vmctl up --explain`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence

from images.kernels import kernel as kernels
from images.kernels import moduledisk, uncompressed
from images.store import store
from images.store.image import Image
from vmctl import byhand, ids
from vmctl.byhand import heredoc
from vmctl.instances.folder import Home
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.net import Link, preview
from vmctl.spec.workload import Workload
from vmctl.steps import Step
from vmm import accelerator, boot, configure, confinement, disk, domain, files, guest, hypervisor, preparation, seed
from vmm import inguest as inner
from vmm.choices import Choices

KEY = "ssh-ed25519 <made at the start>"


def steps(work: Workload, choices: Choices) -> Iterator[Step]:
    """Yield the steps in their order; changes nothing."""
    image = store.find(work.image)
    home = Home(work.name, "0" * 8)
    links = preview(work, home)
    kind = boot.kind(image, work)
    machine = _here(preparation.machine_of(work, home, image, _accelerator(choices.accel, work.vm.kernel)), links)
    yield byhand.folder('mkdir "$W/seed"')
    yield from _whole_disk(work, image) if kind == boot.DISK else _artefacts(work, image, kind, dict(machine.dax))
    group, switch = Cgroup(f"{work.name}.hand"), f"{work.name}-hand"
    yield from byhand.cgroup(group, Limits(cpus=work.resources.cpus))
    for link in links:
        yield byhand.switch(switch, link)
        yield _tap(switch, link)
    yield from _seed(work, home, image, links)
    if work.volumes:
        yield from _volumes(work, home)
    yield from _hypervisor(machine, group, f"ip netns exec {switch} " if links else "")
    yield from inner.steps(work, image, kind, links)


def _here(machine: domain.Machine, links: Sequence[Link]) -> domain.Machine:
    """Return the machine with its own files in the folder $W."""
    return machine._replace(
        disk="$W/disk.img",
        seed="$W/seed.iso",
        console="$W/console",
        outputs=tuple((name, f"$W/{os.path.basename(path)}") for name, path in machine.outputs),
        control=(machine.control[0], "$W/control"),
        agent=machine.agent and (machine.agent[0], "$W/agent"),
        nics=tuple(domain.Nic(link.device, link.mac, link.mtu) for link in links),
        uid=ids.FIRST,
    )


def _artefacts(work: Workload, image: Image, kind: str, dax: Mapping[int, int]) -> Iterator[Step]:
    for number, layer in enumerate(image.stack):
        why = "attached read-only; a container mounts the same file"
        if number in dax:
            why = "in the guest's address space, read in place (virtio-pmem, DAX); a container mounts the same file"
        yield _file(f"image layer {number}", layer.path, why)
    kernel = kernels.find(work.vm.kernel)
    path, form = uncompressed.image(kernel), "booted directly: no boot loader, no boot disk"
    if path != kernel.vmlinuz:
        form = f"uncompressed, so no guest has to do it, from {kernel.vmlinuz}; {form}"
    yield _file("kernel", path, f"Linux {kernel.release}, {form}")
    does = "the agent for exec, and our init: mounts the layers, applies the seed"
    if kind != boot.DIRECT:
        does = "and our init: mounts the layers and executes the image's init (switch_root)"
    yield _file("initrd", guest.initrd(kernel, volumes=bool(work.volumes), dax=bool(dax)), f"busybox, modules, {does}")
    if kind != boot.DIRECT:
        why = "the kernel's modules, for udev: the lowest read-only layer"
        yield _file("modules", moduledisk.build(kernel), why)
    size_bytes = work.resources.disk_bytes or disk.DEFAULT_SIZE_BYTES
    words = " ".join(disk.command('"$W/disk.img"', size_bytes))
    raw = f'truncate -s {size_bytes} "$W/disk.img"\n{words}'
    why = "sparse: the upper directory of the guest's overlay, under 1 MiB until something is written"
    yield Step("writable disk", raw, why, "disk")


def _file(what: str, path: str, why: str) -> Step:
    return Step(what, f"ls -lh {shlex.quote(path)}", why, "image")


def _whole_disk(work: Workload, image: Image) -> Iterator[Step]:
    yield _file("image disk", image.disk, "attached read-only, with its own boot loader, kernel and init")
    words = shlex.join(disk.overlay_command("DISK", image.disk, work.resources.disk_bytes))
    raw = '"$W/disk.img"'.join(words.rsplit("DISK", 1))
    yield Step("writable disk", raw, "contains the differences from the image, 200 KiB at first", "disk")


def _volumes(work: Workload, home: Home) -> Iterator[Step]:
    from vmctl.volumes import places
    from vmm import volumes

    for number, volume in enumerate(places.found(work, home.directory)):
        line = f"{shlex.join(volumes.command(3))} 3<>{files.volume_socket(home, number)}"
        mounted = f"mount --rbind -o {'ro,' if volume.read_only else ''}nosuid,nodev {volume.source} /volume"
        why = f"the file server of {volume.target}, as root of a user namespace with nothing but the volume"
        yield Step(f"volume {number}", f"{mounted}\n{line}", why)


def _tap(switch: str, link: Link) -> Step:
    raw = f"ip -n {switch} tuntap add {link.device} mode tap vnet_hdr\n"
    raw += f"ip -n {switch} link set {link.device} master {byhand.BRIDGE} mtu {link.mtu} up"
    return Step("tap device", raw, "the end of the guest's cable, which QEMU opens", "cable")


def _seed(work: Workload, home: Home, image: Image, links: Sequence[Link]) -> Iterator[Step]:
    written = configure.seed_of(work, home, image, links, seed.Identity(KEY, "<made at the start>", KEY))
    for name, content in written.files().items():
        why = "vmctl makes a pair of keys for ssh here" if name == "user-data" else ""
        yield Step(f"seed: {name}", heredoc(f'cat > "$W/seed/{name}"', content.rstrip("\n") + "\n"), why, "seed")
    raw = f'genisoimage -quiet -V {seed.LABEL} -r -o "$W/seed.iso" "$W/seed"'
    yield Step("cloud-init seed", raw, "an ISO labelled cidata: the guest's only configuration", "seed")


def _hypervisor(machine: domain.Machine, group: Cgroup, within: str) -> Iterator[Step]:
    why = "the guest's hardware, as vmctl gives it to libvirt"
    yield Step("domain XML", heredoc('cat > "$W/domain.xml"', domain.domain_xml(machine)), why, "plan")
    why = f"QEMU emulates devices for a hostile guest, so vmctl gives it: {confinement.summary(machine.uid)}"
    yield Step("confinement", ": by hand its own user, and a filter of system calls", why, "qemu")
    raw = f"sh -c '{byhand.join(group)}exec {within}sh'"
    yield Step("enter", raw, "a shell in the cgroup and the network of QEMU", "qemu", undo=byhand.end(group))
    raw = 'mkfifo "$W/control.in" "$W/control.out"'
    yield Step("control", raw, "vmctl's requests to the guest's init", "qemu", place="inside")
    why = "libvirt executes a line like this, with descriptors in place of files, and -S until all is set up"
    yield Step("QEMU", hypervisor.line(machine), why, "qemu", place="inside")


def _accelerator(requested: str, kernel_name: str) -> str:
    """Return the accelerator that a start would use, as far as that is known without a probe; else `auto`."""
    known = accelerator.known(kernel_name) if requested == "auto" else None
    return known.name if known else requested
