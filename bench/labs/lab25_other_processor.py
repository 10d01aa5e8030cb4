"""Lab 25: a program for another processor."""

from __future__ import annotations

import os
import struct
from tempfile import TemporaryDirectory

from bench.labs.lab import HOLDS, REFUTED, UNDECIDABLE, Evidence, Lab, Place, Value, Verdict, missing, text
from vmctl.programs import run, which

_MODES = ("host", "container", "vm")
_WORDS = "another processor"
_EMULATOR = "qemu-system-aarch64"
_START, _SERIAL = 0x40000000, 0x09000000  # of QEMU's machine `virt`: its memory, and its serial port (PL011)
_EM_AARCH64 = 183
_RUN_S = 20.0


def _program(*, bare: bool) -> bytes:
    """Return an ELF file for aarch64 with one segment (elf(5)): for Linux it only exits, bare it writes a sentence."""
    linux = (0xD2800BA8, 0xD2800000, 0xD4000001)  # mov x8, 93 (exit); mov x0, 0; svc 0
    alone = (
        *(0x10000122, 0xD2A12001),  # adr x2, words; movz x1, 0x900, lsl 16 (the serial port)
        *(0x38401443, 0x34000063, 0xB9000023, 0x17FFFFFD),  # next: ldrb w3, [x2], 1; cbz w3, stop; str w3, [x1]; b next
        *(0xD503207F, 0x17FFFFFF, 0xD503201F),  # stop: wfi; b stop; nop
    )
    code = struct.pack(f"<{len(alone if bare else linux)}I", *(alone if bare else linux))
    code += f"{_WORDS}\n\0".encode() if bare else b""
    base, size = _START if bare else 0x400000, 64 + 56 + len(code)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, _EM_AARCH64, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 7, 0, base, base, size, size, 0x1000) + code


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {"this machine: processor": os.uname().machine}
    image = place.image("FROM tiny", "COPY --chmod=755 program /program", files={"program": _program(bare=False)})
    for mode in _MODES:
        seen[f"{mode}: answer"] = place.vmctl("run", "--mode", mode, image, "--", "/program").replace("\n", "; ")
    seen["emulator"] = which(_EMULATOR) or "not installed (on Debian: apt install qemu-system-arm)"
    if which(_EMULATOR):
        seen["machine of that kind: its words"] = _emulated()
    return seen


def _emulated() -> str:
    """Return what the program writes that needs no system, on an emulated machine with that processor."""
    with TemporaryDirectory(prefix="vmctl-lab-") as folder:
        program, serial = (os.path.join(folder, name) for name in ("program", "serial"))
        with open(program, "wb") as file:
            file.write(_program(bare=True))
        machine = ["-M", "virt", "-cpu", "cortex-a53", "-display", "none", "-monitor", "none"]
        argv = ["timeout", f"{_RUN_S / 4:g}", _EMULATOR, *machine, "-serial", f"file:{serial}", "-kernel", program]
        run(argv, check=False, timeout_s=_RUN_S)
        with open(serial, encoding="ascii", errors="replace") as file:
            return file.read().strip() or "none"


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "this machine: processor", *(f"{mode}: answer" for mode in _MODES)):
        return unknown
    if text(seen, "this machine: processor") == "aarch64":
        return Verdict(UNDECIDABLE, "this machine has the processor of the program")
    runs = [mode for mode in _MODES if text(seen, f"{mode}: answer").endswith("exit 0")]
    if runs:
        return Verdict(
            REFUTED, f"it runs in mode {', '.join(runs)}: this kernel has an interpreter for it (binfmt_misc)"
        )
    words = text(seen, "machine of that kind: its words")
    reason = f"a container answers: {text(seen, 'container: answer')}"
    if not words:
        return Verdict(UNDECIDABLE, f"{reason}; there is no emulator here: {text(seen, 'emulator')}")
    return Verdict(HOLDS if _WORDS in words else REFUTED, f"{reason}; the emulated machine: {words}")


LAB = Lab(
    number=25,
    name="other-processor",
    claim="A virtual machine can run another architecture by emulation; a container needs the host's processor.",
    why="Images for arm64 on a laptop with amd64 are emulated, which is slow, and few tools report it.",
    steps=(
        "write a program for arm64, and execute it on this machine, in a container, and in a guest",
        "give a program for arm64 that needs no system to an emulated machine with that processor, if QEMU has it",
    ),
    rule="holds if no mode executes the program, but the emulated machine does; undecidable without that emulator",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "apt install qemu-system-arm, and run this lab again",
        "apt install qemu-user-static: what does the container answer now, and who executes it?",
        "vmctl image pull --platform linux/arm64: what does vmctl run answer for such an image?",
    ),
)
