"""What guests need of a host, for `vmctl doctor`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from glob import glob

from vmctl.linux import abilities
from vmctl.needs import Need, Package, network, program, tried
from vmctl.programs import run
from vmm import accelerator

QEMU_DRIVER = "libvirt/connection-driver/libvirt_driver_qemu.so"
LIBRARY_FOLDERS = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib*")
QEMU_NAMES = (f"qemu-system-{os.uname().machine}", "/usr/libexec/qemu-kvm")
QEMU = Package(QEMU_NAMES, "qemu-system-x86", "qemu-system-x86-core", "qemu-base")
LIBVIRT = Package(("libvirt.so.0",), "libvirt-daemon-driver-qemu", "libvirt-daemon-driver-qemu", "libvirt")
MKE2FS = Package(("mke2fs",), "e2fsprogs", "e2fsprogs", "e2fsprogs")
CC = Package(("cc",), "gcc libc6-dev", "gcc glibc-static", "gcc")
VIRTIOFSD = Package(("/usr/lib/qemu/virtiofsd",), "qemu-system-common", "qemu-virtiofsd", "qemu-virtiofsd")
DROPBEAR = Package(("dropbear",), "dropbear-bin", "dropbear", "dropbear")


def needs() -> Iterator[Need]:
    """Yield what a start needs, then what makes it quick."""
    yield _qemu()
    yield from _libvirt()
    yield from network()
    yield tried("/dev/net/tun", abilities.make_tap, "network", "modprobe tun")
    yield program("mke2fs", MKE2FS, "the writable disk")
    yield program("cc", CC, "exec and shell: the guest's agent is compiled here, with a static C library")
    yield program("dropbear", DROPBEAR, "SSH to guests")
    yield program("virtiofsd", VIRTIOFSD, "volumes in guests", required=False)
    yield from _acceleration()


def _qemu() -> Need:
    need = program("QEMU", QEMU, "the virtual machine")
    if not need.ok:
        return need
    _, stdout, _ = run([need.found, "--version"], check=False)
    return need._replace(found=f"{need.found}: {stdout.partition(chr(10))[0]}")


def _libvirt() -> Iterator[Need]:
    from importlib.util import find_spec

    library, driver = _library(LIBVIRT.names[0]), _library(QEMU_DRIVER)
    yield _found("libvirt", library, LIBVIRT.hint())
    yield _found("libvirt's QEMU driver", driver, LIBVIRT.hint())
    spec = find_spec("libvirt")  # found, not imported: that takes 30 ms
    yield _found("libvirt for Python", spec.origin if spec else None, "`make setup`, or pip install libvirt-python")


def _found(name: str, path: str | None, hint: str) -> Need:
    return Need(name, path is not None, path or "not installed", "starting guests", "" if path else hint)


def _library(name: str) -> str | None:
    return next((path for folder in LIBRARY_FOLDERS for path in glob(f"{folder}/{name}")), None)


def _acceleration() -> Iterator[Need]:
    yield _kvm()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = next((set(line.split()) for line in file if line.startswith(("flags", "Features"))), set())
    words: list[str] = [name for name in ("vmx", "svm") if name in flags] or ["no vmx or svm"]
    words += ["this host is itself a guest"] if "hypervisor" in flags else []
    for path in glob("/sys/module/kvm_*/parameters/nested"):
        with open(path, encoding="ascii") as file:
            words.append(f"{path.split('/')[3]} nested={file.read().strip()}")
    yield Need("virtualisation", None, ", ".join(words), "KVM")


def _join_group(error: OSError, hint: str) -> str:
    """Return the hint for a /dev/kvm that this user may not open: udev gives it to a group."""
    refused = error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0
    return f"{hint}; sudo usermod -aG kvm $USER, then log in again" if refused else hint


def _kvm() -> Need:
    hint = "without KVM guests are emulated (TCG), several times slower"
    if not os.path.exists("/dev/kvm"):
        return Need("/dev/kvm", None, "absent", "speed", f"{hint}; modprobe kvm_intel or kvm_amd")
    if error := abilities.failure_of(abilities.ask_kvm):
        return Need("/dev/kvm", None, f"refused: {error.strerror}", "speed", _join_group(error, hint))
    verdict = accelerator.newest_verdict()
    if verdict is None:
        return Need(
            "/dev/kvm",
            None,
            "present, untested: no guest has been started with it yet",
            "speed",
            "`vmctl up --mode vm` tries",
        )
    proved = verdict.name == "kvm"
    return Need("/dev/kvm", True if proved else None, verdict.why, "speed", "" if proved else hint)
