"""The accelerator: KVM if a guest has really booted under it on this host, else emulation by QEMU's TCG.

That /dev/kvm can be opened is not enough: on some hosts with nested or page-table based KVM it creates virtual machines
whose kernel never reaches its init. So the real kernel and initrd are booted, with a deadline, and the result is saved
for this host, kernel and QEMU.
"""

from __future__ import annotations

import json
import os
import time

from images.kernels import kernel as kernels
from images.kernels import uncompressed
from images.kernels.kernel import Kernel
from vmctl import paths, records
from vmctl.errors import NoKvm
from vmctl.linux.filetree import write_atomic
from vmctl.named import NamedTuple
from vmctl.programs import CommandError, run
from vmctl.spec.units import format_seconds
from vmm import guest, qemu

DEVICE = "/dev/kvm"
DEADLINE_S = 10.0  # if KVM works, this guest boots in less than one second
PROVED = "probe ok"  # written by the guest's init if `vmctl.probe` is on the kernel's command line


class Accelerator(NamedTuple):
    """An accelerator, and the reason for it."""

    name: str  # kvm | tcg
    why: str


def choose(requested: str, kernel_name: str = "debian") -> Accelerator:
    """Return the accelerator for `auto`, `kvm` or `tcg`. Raises NoKvm if `kvm` does not work here."""
    if requested == "tcg":
        return Accelerator("tcg", "requested")
    verdict = known(kernel_name) or renewed(kernel_name)
    if requested == "kvm" and verdict.name != "kvm":
        raise NoKvm(
            f"KVM does not run guests on this host: {verdict.why}",
            hint="use --accel tcg, which is several times slower",
        )
    return verdict


def known(kernel_name: str = "debian") -> Accelerator | None:
    """Return the saved result for this kernel on this host, or None if it has not been tried yet."""
    if not os.path.exists(DEVICE):
        return Accelerator("tcg", f"{DEVICE} does not exist")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"{DEVICE} cannot be opened: permission denied")
    found = _verdicts().get(_key(kernel_name))
    return Accelerator(found["name"], found["why"]) if found else None


def renewed(kernel_name: str = "debian") -> Accelerator:
    """Return the result of another try on this host, which replaces the saved one."""
    return _remember(kernel_name, probe(kernels.find(kernel_name)))


def probe(kernel: Kernel) -> Accelerator:
    """Boot the kernel under KVM until our init runs, and return the result; takes at most DEADLINE_S seconds."""
    begin_s = time.monotonic()
    try:
        _, output, errors = run(command(kernel, "kvm", "host"), check=False, timeout_s=DEADLINE_S)
    except CommandError as error:
        return Accelerator("tcg", f"a guest did not boot under KVM within {DEADLINE_S:g} s: {_last_line(error.output)}")
    if PROVED in output:
        return Accelerator("kvm", f"a guest booted under it in {format_seconds(time.monotonic() - begin_s)}")
    return Accelerator("tcg", f"a guest did not boot under KVM: {_last_line(errors or output)}")


def command(kernel: Kernel, accelerator: str, cpu: str) -> list[str]:
    """Return the QEMU command that boots a kernel until our init runs, and powers off."""
    return [
        *(qemu.emulator() or "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", f"q35,accel={accelerator},hpet=off", "-cpu", cpu, "-m", "256", "-no-reboot"),
        *(("-bios", firmware) if (firmware := qemu.quick_firmware()) else ()),
        *("-kernel", uncompressed.image(kernel), "-initrd", guest.initrd(kernel)),
        *("-append", f"{guest.KERNEL_ARGS} vmctl.probe"),
        *("-chardev", "file,id=console,path=/dev/stdout", "-serial", "chardev:console"),
    ]


def _remember(kernel_name: str, verdict: Accelerator) -> Accelerator:
    verdicts, key = _verdicts(), _key(kernel_name)
    verdicts.pop(key, None)  # the newest one comes last
    os.makedirs(paths.cache_root(), exist_ok=True)
    write_atomic(_file(), json.dumps(records.versioned({**verdicts, key: verdict._asdict()}), indent=2))
    return verdict


def newest_verdict() -> Accelerator | None:
    """Return the result of the last probe on this host, for any kernel; None before the first probe."""
    try:
        newest = list(_verdicts().values())[-1]
        return Accelerator(newest["name"], newest["why"])
    except (LookupError, TypeError):
        return None


def _verdicts() -> dict[str, dict[str, str]]:
    try:
        return records.checked_format(records.read(_file(), "the verdicts"), "the verdicts")
    except (OSError, records.UnreadableError):  # it can be found out again
        return {}


def _file() -> str:
    return os.path.join(paths.cache_root(), "accelerator.json")


def _key(kernel_name: str) -> str:
    """Return the key of a result: this machine, its kernel, this QEMU, the guest's kernel."""
    status = os.stat(qemu.emulator() or "/")
    return f"{_machine_id()} {os.uname().release} qemu-{status.st_size}-{int(status.st_mtime)} {kernel_name}"


def _machine_id() -> str:
    for path in ("/etc/machine-id", "/sys/class/dmi/id/product_uuid"):
        try:
            with open(path, encoding="ascii") as file:
                if text := file.read().strip():
                    return text
        except OSError:
            continue
    return os.uname().nodename


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it produced no output"
