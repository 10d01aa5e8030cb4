"""The accelerator probe: a real guest decides, the verdict is kept, and nothing is believed for a device file."""

import json
import os

import pytest

from images.kernels import kernel
from images.upkeep import defaults
from vmctl import paths
from vmctl.errors import UnavailableError
from vmctl.programs import run
from vmm import accelerator


@pytest.fixture(autouse=True)
def _root(own_root):
    defaults.ensure_defaults(lambda text: None)


def test_the_guest_says_the_probes_words_under_tcg():
    code, output, _ = run(accelerator.command(kernel.find("debian"), "tcg", "max"), timeout_s=120)
    assert code == 0
    assert accelerator.PROVED in output


def test_the_verdict_is_remembered_and_holds_for_this_host_only(monkeypatch):
    first = accelerator.choose("auto")
    assert first.name in ("kvm", "tcg")
    assert first.why
    if os.access(accelerator.DEVICE, os.R_OK | os.W_OK):
        with open(os.path.join(paths.cache_root(), "accelerator.json"), encoding="utf-8") as file:
            assert list(json.load(file).values())[-1] == first._asdict()
        monkeypatch.setattr(accelerator, "_machine_id", lambda: "another-machine")
        assert accelerator.known() is None
    else:
        assert accelerator.known() == first


def test_without_a_device_there_is_no_kvm(monkeypatch):
    monkeypatch.setattr(accelerator, "DEVICE", "/dev/no-kvm-here")
    assert accelerator.choose("auto") == ("tcg", "/dev/no-kvm-here does not exist")
    with pytest.raises(UnavailableError, match="/dev/no-kvm-here does not exist"):
        accelerator.choose("kvm")


def test_a_damaged_memory_is_no_memory():
    os.makedirs(paths.cache_root(), exist_ok=True)
    with open(os.path.join(paths.cache_root(), "accelerator.json"), "w", encoding="utf-8") as file:
        file.write("{")
    assert accelerator.choose("auto").name in ("kvm", "tcg")


# A 16-bit boot sector that prints "KVM?" to the first serial port (mov dx, 0x3f8; mov al, letter; out dx, al) and
# powers off through isa-debug-exit.
BOOT_SECTOR = b"".join(
    [
        *(b"\xba\xf8\x03\xb0" + bytes([letter]) + b"\xee" for letter in b"KVM?"),
        b"\xba\x01\x05\xb0\x00\xee",  # mov dx,0x501; mov al,0; out dx,al
        b"\xf4",  # hlt
    ]
)


@pytest.mark.skipif(not os.access(accelerator.DEVICE, os.R_OK | os.W_OK), reason=f"no usable {accelerator.DEVICE}")
def test_the_kvm_path_runs_a_boot_sector(tmp_path):
    """Where KVM boots no kernel, the way to it (QEMU, device, CPU) can still be walked."""
    sector = tmp_path / "boot"
    sector.write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa")
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-m", "16"]
    argv += ["-cpu", "host,-arch-capabilities", "-drive", f"file={sector},format=raw,if=ide"]
    argv += ["-device", "isa-debug-exit,iobase=0x501,iosize=1"]
    argv += ["-chardev", "file,id=console,path=/dev/stdout", "-serial", "chardev:console"]
    code, output, _ = run(argv, check=False, timeout_s=240)
    assert output == "KVM?"
    assert code == 1  # isa-debug-exit: (0 << 1) | 1
