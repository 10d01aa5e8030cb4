"""Check whether a workload can run as a guest on this host; reports all problems and changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module

from images.kernels import kernel as kernels
from images.store import store
from images.store.image import Image, architecture, check_files
from vmctl import ids, limits
from vmctl.backend import Problem
from vmctl.errors import VmctlError
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.programs import which
from vmctl.spec.rules import lookups
from vmctl.spec.workload import Workload
from vmm import accelerator, boot, disk, domain, files, qemu, rootbus
from vmm.choices import Choices
from vmm.saved import templates

LEAST_MEMORY_BYTES = 96 * 1024**2  # Debian's kernel and the initrd do not fit into less
MOST_VCPUS = 255  # of a q35 machine without an IOMMU (QEMU, hw/i386/x86.c)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def problems(work: Workload, choices: Choices) -> Iterator[Problem]:
    """Yield each problem with a hint."""
    work = choices.of(work)
    yield from _host()
    yield from _chosen(work, choices)
    yield from _paths(work)
    yield from _image(work)
    if work.volumes:
        from vmm.volumes import checks as of_volumes

        yield from of_volumes.problems(work)
    yield from _keys(work)
    yield from _refusal(lambda: Cgroup(work.name).check(Limits(cpus=work.resources.cpus)))
    yield from _values(work)


def _host() -> Iterator[Problem]:
    if os.geteuid() != 0:
        yield Problem("this process is not in the namespaces of its user", "call vmctl.holder.enter() first")
    elif not ids.exist():
        yield Problem(
            "libvirt sets the groups of QEMU, which a user without subordinate ids cannot do",
            "`vmctl doctor` shows how to get them",
        )
    if os.uname().machine != "x86_64":
        yield Problem(f"vm mode runs on x86_64 hosts, this one is {os.uname().machine}")
    if qemu.emulator() is None:
        yield Problem("QEMU is not installed", "`vmctl doctor` shows how to install it")
    if which("mke2fs") is None:
        yield Problem("mke2fs is not installed", "`vmctl doctor` shows how to install it")
    try:
        import_module("vmm.connection")
    except ImportError as error:
        yield Problem(f"libvirt cannot be loaded: {error}", "`make setup` installs the library and its Python binding")


def _chosen(work: Workload, choices: Choices) -> Iterator[Problem]:
    """Yield the problems of the accelerator and the libvirt that the user has chosen."""
    if choices.accel == "kvm":
        yield from _refusal(lambda: accelerator.choose("kvm"))
    if choices.daemon_uri and work.network != "none":
        yield Problem(
            f"guests of the libvirt daemon {choices.daemon_uri} cannot use vmctl's network, which is in a namespace",
            "use `network: none`, or neither --connect nor LIBVIRT_DEFAULT_URI",
        )


def _paths(work: Workload) -> Iterator[Problem]:
    path = files.longest_socket_path(work.name)
    excess = len(os.fsencode(path)) - files.SOCKET_PATH_MAX
    if excess > 0:
        yield Problem(
            f"the path of QEMU's socket is {excess} bytes longer than the kernel allows: {path}",
            "set VMCTL_ROOT to a shorter path",
        )


def _image(work: Workload) -> Iterator[Problem]:
    try:
        image = store.find(work.image)
        if image.architecture != architecture():
            yield Problem(f"the image {work.image} is for {image.architecture}, this host is {architecture()}")
        check_files(image, rootbus.layers_max(len(work.joined()), len(work.volumes)))
        yield from _boot(work, image)
    except VmctlError as error:
        yield Problem(str(error), error.hint, type(error))


def _refusal(attempt: Callable[[], object]) -> Iterator[Problem]:
    """Yield the error of an attempt, if it fails, as a problem."""
    try:
        attempt()
    except VmctlError as error:
        yield Problem(str(error), error.hint, type(error))


def _boot(work: Workload, image: Image) -> Iterator[Problem]:
    """Yield the problems of booting the image as the workload requests."""
    kind = boot.kind(image, work)
    yield from _refusal(lambda: boot.main_process(image, work))
    if kind == boot.DISK:
        yield from _disk(work, image)
    else:
        if work.resources.disk_bytes is not None:
            yield from filter(None, [limits.disk_problem(work.resources.disk_bytes, disk.LEAST_BYTES)])
        yield from _refusal(lambda: kernels.find(work.vm.kernel))
    if kind == boot.SYSTEM and (missing := boot.lacks(image)):
        yield Problem(
            f"the image {work.image} cannot be booted as a system: it has no {missing}", "leave the key `vm.boot` out"
        )
    if work.vm.warm == "on" and (why := templates.refusal(work, kind)):
        yield Problem(f"vm.warm: this guest has to boot each time: {why}", "with `warm: auto` it is started like that")
    if kind == boot.DIRECT:
        yield from _direct_keys(work)
    else:
        yield from _system_keys(work, image)


def _direct_keys(work: Workload) -> Iterator[Problem]:
    if work.vm.cloud_init:
        yield Problem(
            f"vm.cloud_init needs cloud-init, but the image {work.image} is not booted as a system",
            "use an image with systemd and cloud-init; if this image has both, set `vm: {boot: system}`",
        )


def _system_keys(work: Workload, image: Image) -> Iterator[Problem]:
    for key, value in (("tmpfs", work.tmpfs), ("shm_size", work.shm_size_bytes)):
        if value:
            yield Problem(
                f"{key}: a system that boots mounts its folders itself", "write a line of /etc/fstab by `files`"
            )
    if (asked := lookups(work)) and asked.dns_opt:
        yield Problem(
            "network.dns_opt: a system that boots writes its own /etc/resolv.conf", "`files` can change its resolver"
        )
    if work.sysctls:
        yield Problem("sysctls: a system that boots sets them itself", "write a file of /etc/sysctl.d by `files`")
    for key, given in (("tty", work.tty), ("stdin_open", work.stdin_open)):
        if given:
            yield Problem(
                f"{key}: a system that boots has its own terminals, and its command none",
                "leave it out; `vmctl console NAME` is its console, `vmctl shell NAME` opens a terminal",
            )
    if work.read_only:
        yield Problem(
            "read_only: a system that boots has to write to its root", "leave the key out, or set `vm: {boot: direct}`"
        )
    if work.resources.pids is not None and boot.main_process(image, work) is None:
        yield Problem(
            "resources.pids limits a command, but this workload has none", "set `command`, or leave the key out"
        )
    if work.vm.cloud_init:
        from vmm import userdata  # it imports email and yaml

        path = work.vm.cloud_init
        yield from _refusal(lambda: userdata.load(path))


def _disk(work: Workload, image: Image) -> Iterator[Problem]:
    if which("qemu-img") is None:
        yield Problem("qemu-img is not installed", "`vmctl doctor` shows how to install it")
        return
    if work.vm.boot == "direct":
        yield Problem(
            f"the image {work.image} is a disk, so vm.boot cannot be direct",
            "`vmctl image import --as-layer` turns a disk into a layer",
        )
    if work.vm.kernel != kernels.DEBIAN:
        yield Problem(
            f"the image {work.image} is a disk with its own kernel, so vm.kernel has no effect",
            "leave the key `vm.kernel` out",
        )
    for key, value in (("secrets", work.secrets), ("env_file", work.env_file)):
        if value:
            yield Problem(f"{key}: the init of a disk that boots takes no secrets", "write them over SSH")
    if work.read_only:
        yield Problem("read_only: a disk that boots has to be written", "leave the key out")
    if work.volumes:
        yield Problem(
            f"the image {work.image} is a disk with its own kernel, which mounts no volumes of vmctl",
            "`vmctl image import --as-layer` turns a disk into a layer",
        )
    yield from _refusal(lambda: disk.check_size(image.disk, work.resources.disk_bytes))


def _keys(work: Workload) -> Iterator[Problem]:
    """Yield the keys of the workload file that this mode does not support."""
    if work.devices:
        yield Problem("devices: a guest has its own devices, and gets none of the host", "use --mode container")
    if work.ulimits:
        yield Problem(
            "vm mode cannot set ulimits yet", "begin the command with `ulimit` in a shell, or --mode container"
        )
    if work.network == "host":
        yield Problem("a guest has its own kernel and cannot use the host's network", "use `network: bridge`")


def _values(work: Workload) -> Iterator[Problem]:
    vcpus = min(domain.vcpus(work.resources.cpus), os.cpu_count() or 1)
    if vcpus > MOST_VCPUS:
        yield Problem(f"a guest has at most {MOST_VCPUS} processors, not {vcpus}", "lower `resources.cpus`")
    memory_bytes = work.resources.memory_bytes
    if memory_bytes is not None and memory_bytes < LEAST_MEMORY_BYTES:
        yield Problem(f"a guest needs at least {LEAST_MEMORY_BYTES >> 20}M of memory", "raise `resources.memory`")
    for name in work.env:
        if not VARIABLE.fullmatch(name):
            yield Problem(f"the variable {name!r} cannot be passed to a guest", "use only letters, digits and '_'")
    for file in work.files:
        if any(ord(letter) < 32 for letter in file.path):
            yield Problem(f"the path {file.path!r} contains a control character", "use another path")
