"""What this host offers and what it lacks, for `vmctl doctor`.

Abilities of the kernel are tried, not deduced from versions or from who asks; programs and libraries are looked for.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from glob import glob
from typing import Any, NamedTuple

from vmctl import paths
from vmctl.errors import VmctlError
from vmctl.linux import abilities, cgroups
from vmctl.run import run, which
from vmctl.units import format_size

ROOM_BYTES = 2 * 1024**3  # for images, a kernel and some writable layers
LEAST_KERNEL = (5, 11)  # close_range with CLOSE_RANGE_CLOEXEC; the rest is older
QEMU_NAMES = (f"qemu-system-{os.uname().machine}", "/usr/libexec/qemu-kvm")
QEMU_DRIVER = "libvirt/connection-driver/libvirt_driver_qemu.so"
LIBRARY_FOLDERS = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib*")


class Check(NamedTuple):
    """One thing looked at: `ok` is None where its lack only costs comfort, or where looking cannot tell."""

    name: str
    ok: bool | None
    found: str
    needed_by: str
    hint: str = ""


class Package(NamedTuple):
    """What a program or library is called, and the packages it comes in."""

    names: tuple[str, ...]
    needed_by: str
    debian: str
    fedora: str
    arch: str

    def hint(self) -> str:
        """Return how to install it."""
        return f"Debian: apt install {self.debian}; Fedora: dnf install {self.fedora}; Arch: pacman -S {self.arch}"


QEMU = Package(QEMU_NAMES, "vm", "qemu-system-x86", "qemu-system-x86-core", "qemu-base")
LIBVIRT = Package(("libvirt.so.0",), "vm", "libvirt-daemon-driver-qemu", "libvirt-daemon-driver-qemu", "libvirt")
PROGRAMS = {
    "erofs-utils": Package(("mkfs.erofs",), "images", "erofs-utils", "erofs-utils", "erofs-utils"),
    "mke2fs": Package(("mke2fs",), "vm: the writable disk", "e2fsprogs", "e2fsprogs", "e2fsprogs"),
    "dropbear": Package(("dropbear",), "vm: exec and shell", "dropbear-bin", "dropbear", "dropbear"),
}
COMFORTS = {
    "tini": Package(("tini-static",), "container: `init: true`", "tini", "tini-static", "tini"),
    "skopeo": Package(("skopeo",), "image pull, push, login", "skopeo", "skopeo", "skopeo"),
    "mmdebstrap": Package(("mmdebstrap",), "image build of packages", "mmdebstrap", "mmdebstrap", "mmdebstrap"),
    "qemu-img": Package(("qemu-img",), "image import of disks", "qemu-utils", "qemu-img", "qemu-img"),
    "guestfish": Package(
        ("guestfish",), "image import --as-layer without root", "guestfish", "guestfs-tools", "libguestfs"
    ),
    "ip": Package(("ip",), "people who look inside the switch", "iproute2", "iproute", "iproute2"),
}
BUSYBOX = Package(("busybox.static", "busybox"), "images: tiny; vm: initrd", "busybox-static", "busybox", "busybox")


def checks() -> list[Check]:
    """Return what was found, in the order to read it; nothing is left changed."""
    return [*_kernel(), *_network(), *_programs(), *_acceleration(), _room()]


def _kernel() -> Iterator[Check]:
    root = os.geteuid() == 0
    yield Check("root", root, f"uid {os.geteuid()}", "every mode", "" if root else "run vmctl with sudo")
    release, machine = os.uname().release, os.uname().machine
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    recent = numbers >= LEAST_KERNEL
    yield Check(
        "kernel", recent, f"{release} {machine}", "every mode", "" if recent else "Linux 5.11 or later is needed"
    )
    yield _cgroup()
    yield _namespaces()
    yield _tried("overlayfs", abilities.mount_overlay, "container", "modprobe overlay")
    yield _erofs()
    yield _tried("seccomp", abilities.filter_system_calls, "container", "the kernel needs CONFIG_SECCOMP_FILTER")


def _tried(name: str, action: Any, needed_by: str, hint: str) -> Check:
    error = abilities.failure_of(action)
    if error is None:
        return Check(name, True, "works", needed_by)
    return Check(name, False, f"refused: {error.strerror}", needed_by, _root_first(error, hint))


def _root_first(error: OSError, hint: str) -> str:
    refused = error.errno in (errno.EPERM, errno.EACCES)
    return "try again as root" if refused and os.geteuid() != 0 else hint


def _cgroup() -> Check:
    try:
        layout = cgroups.hierarchy()
    except VmctlError as error:
        return Check("cgroups", False, str(error), "container, vm: limits", error.hint)
    version = "v2" if layout.version == 2 else "v1, hybrid" if _has_unified() else "v1"
    missing = [name for name in cgroups.CONTROLLERS if name not in layout.mounts]
    found = f"{version}: {', '.join(sorted(layout.mounts))}"
    return Check(
        "cgroups", not missing, found, "container, vm: limits", f"no controller {', '.join(missing)}" if missing else ""
    )


def _has_unified() -> bool:
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return any(line.split(" ")[2] == "cgroup2" for line in file)


def _namespaces() -> Check:
    refused = abilities.refused_namespaces()
    works = [name for name in abilities.NAMESPACES if name not in refused]
    if not refused:
        return Check("namespaces", True, " ".join(works), "container")
    reasons = ", ".join(sorted({str(error.strerror) for error in refused.values()}))
    needed = set(refused) - {"user"}
    hint = _root_first(next(iter(refused.values())), "see /proc/sys/user/max_*_namespaces")
    return Check("namespaces", False if needed else None, f"not {' '.join(refused)}: {reasons}", "container", hint)


def _erofs() -> Check:
    error = abilities.failure_of(abilities.mount_erofs)
    number = error.errno if error else None
    if number == errno.ENODEV:
        return Check(
            "erofs", False, "not in this kernel", "container: image layers", "modprobe erofs, or a newer kernel"
        )
    if number in (errno.EPERM, errno.EACCES):
        return Check("erofs", None, "cannot be tried", "container: image layers", "try again as root")
    if number != errno.ENOTBLK:
        return Check("erofs", True, "mounts from a file", "container: image layers")
    loop = os.path.exists("/dev/loop-control")
    found = "mounts through a loop device" if loop else "needs a loop device, and there is no /dev/loop-control"
    return Check("erofs", loop, found, "container: image layers", "" if loop else "modprobe loop")


def _network() -> Iterator[Check]:
    yield _tried("bridge, veth", abilities.build_switch, "container, vm: network", "modprobe -a bridge veth")
    yield _tried("/dev/net/tun", abilities.make_tap, "vm: network", "modprobe tun")


def _programs() -> Iterator[Check]:
    yield _qemu()
    yield from _libvirt()
    for name, package in PROGRAMS.items():
        yield _program(name, package, lacking=False)
    yield _busybox()
    for name, package in COMFORTS.items():
        yield _program(name, package, lacking=None)


def _program(name: str, package: Package, lacking: bool | None) -> Check:
    path = next(filter(None, map(which, package.names)), None)
    if path:
        return Check(name, True, path, package.needed_by)
    return Check(name, lacking, "not installed", package.needed_by, package.hint())


def _qemu() -> Check:
    check = _program("QEMU", QEMU, lacking=False)
    if not check.ok:
        return check
    _, stdout, _ = run([check.found, "--version"], check=False)
    return check._replace(found=f"{check.found}: {stdout.partition(chr(10))[0]}")


def _busybox() -> Check:
    check = _program("busybox", BUSYBOX, lacking=False)
    if not check.ok and which("apt-get") and which("dpkg-deb"):
        return check._replace(ok=True, found="fetched from Debian at first use", hint="")
    return check


def _libvirt() -> Iterator[Check]:
    from importlib.util import find_spec

    library, driver = _library(LIBVIRT.names[0]), _library(QEMU_DRIVER)
    yield _found("libvirt", library, LIBVIRT.hint())
    yield _found("libvirt's QEMU driver", driver, LIBVIRT.hint())
    spec = find_spec("libvirt")  # found, not imported: that takes 30 ms
    yield _found("libvirt for Python", spec.origin if spec else None, "`make setup`, or pip install libvirt-python")


def _found(name: str, path: str | None, hint: str) -> Check:
    return Check(name, path is not None, path or "not installed", "vm", "" if path else hint)


def _library(name: str) -> str | None:
    return next((path for folder in LIBRARY_FOLDERS for path in glob(f"{folder}/{name}")), None)


def _acceleration() -> Iterator[Check]:
    yield _kvm()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = next((set(line.split()) for line in file if line.startswith(("flags", "Features"))), set())
    words: list[str] = [name for name in ("vmx", "svm") if name in flags] or ["no vmx or svm"]
    words += ["this host is itself a guest"] if "hypervisor" in flags else []
    for path in glob("/sys/module/kvm_*/parameters/nested"):
        with open(path, encoding="ascii") as file:
            words.append(f"{path.split('/')[3]} nested={file.read().strip()}")
    yield Check("virtualisation", None, ", ".join(words), "vm: KVM")


def _kvm() -> Check:
    hint = "without KVM guests are emulated (TCG), several times slower"
    if not os.path.exists("/dev/kvm"):
        return Check("/dev/kvm", None, "absent", "vm: speed", f"{hint}; modprobe kvm_intel or kvm_amd")
    if error := abilities.failure_of(abilities.ask_kvm):
        return Check("/dev/kvm", None, f"refused: {error.strerror}", "vm: speed", _root_first(error, hint))
    verdict = _verdict()
    if verdict is None:
        return Check(
            "/dev/kvm",
            None,
            "opens, which proves nothing: no guest was tried yet",
            "vm: speed",
            "`vmctl up --mode vm` tries",
        )
    proved = verdict["name"] == "kvm"
    return Check("/dev/kvm", True if proved else None, verdict["why"], "vm: speed", "" if proved else hint)


def _verdict() -> dict[str, Any] | None:
    """Return what the accelerator probe found last: an object with `name` and `why`, the newest one at the end."""
    try:
        with open(os.path.join(paths.cache_root(), "accelerator.json"), encoding="utf-8") as file:
            verdicts: list[dict[str, Any]] = list(json.load(file).values())
        return verdicts[-1] if {"name", "why"} <= verdicts[-1].keys() else None
    except (OSError, ValueError, LookupError, AttributeError):
        return None


def _room() -> Check:
    folder = paths.state_root()
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    status = os.statvfs(folder)
    free_bytes = status.f_bavail * status.f_frsize
    enough = free_bytes >= ROOM_BYTES
    hint = "" if enough else f"at least {format_size(ROOM_BYTES)} is wanted; VMCTL_ROOT moves vmctl elsewhere"
    return Check("room", enough, f"{format_size(free_bytes)} free at {folder}", "images", hint)
