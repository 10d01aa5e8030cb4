"""Lab 24: a system that is not Linux."""

from __future__ import annotations

import os
import time
from tempfile import TemporaryDirectory

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, text

_WORDS = "not Linux: no kernel, no files, no system calls, only this processor"
# A system in 34 bytes: the BIOS loads the first sector of a disk to 0x7c00 and executes it, in 16 bits
_CODE = bytes.fromhex(
    "31c0 8ed8 be227c fc"  # xor ax, ax; mov ds, ax; mov si, words; cld
    "ac 84c0 7412 88c4"  # next: lodsb; test al, al; jz stop; mov ah, al
    "bafd03 ec a820 74fb"  # mov dx, 0x3fd; busy: in al, dx; test al, 0x20; jz busy (the serial port's line status)
    "88e0 baf803 ee ebe9"  # mov al, ah; mov dx, 0x3f8; out dx, al; jmp next
    "f4 ebfd"  # stop: hlt; jmp stop
)
_DISK_BYTES, _SECTOR_BYTES, _SIGNATURE = 1 << 20, 512, b"\x55\xaa"
_TRIES = 60
_SPEC = "image: {0}\nname: {0}\nresources: {{memory: 96M}}\n"


def _gather(place: Place) -> Evidence:
    sector = (_CODE + f"\r\n{_WORDS}\r\n\0".encode()).ljust(_SECTOR_BYTES - 2, b"\0") + _SIGNATURE
    seen: dict[str, Value] = {"vm: its own words": _booted(place, sector)}
    image = place.image("FROM tiny", "COPY --chmod=755 system /system", files={"system": sector})
    for mode in ("container", "host"):
        answer = place.vmctl("run", "--mode", mode, image, "--", "/system")
        seen[f"{mode}: answer"] = answer.replace("\n", "; ")
    return seen


def _booted(place: Place, sector: bytes) -> str:
    """Return the line of the system that a guest has written to its console, or why it has written nothing."""
    name = f"lab-{os.urandom(4).hex()}"
    try:
        with TemporaryDirectory(prefix="vmctl-lab-") as folder:
            disk, spec = (os.path.join(folder, file) for file in ("disk.raw", "spec.yaml"))
            with open(disk, "wb") as file:
                file.write(sector.ljust(_DISK_BYTES, b"\0"))
            with open(spec, "w", encoding="ascii") as lines:
                lines.write(_SPEC.format(name))
            answer = place.vmctl("image", "import", "--name", name, disk)
            answer += place.vmctl("up", "--mode", "vm", "--no-wait", spec)
        for _ in range(_TRIES):
            found = [line for line in place.vmctl("logs", "--boot", name).splitlines() if _WORDS in line]
            if found:
                return found[0]
            time.sleep(1)
        return f"none; {answer}".replace("\n", "; ")
    finally:
        place.vmctl("rm", "-f", name)
        place.vmctl("image", "rm", name)


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "vm: its own words", "container: answer"):
        return unknown
    runs = _WORDS in text(seen, "vm: its own words")
    refused = _WORDS not in text(seen, "container: answer") and "exec" in text(seen, "container: answer").lower()
    return Verdict(
        HOLDS if runs and refused else REFUTED,
        f"the guest {'runs it' if runs else 'does not run it'}; the container: {text(seen, 'container: answer')}",
    )


LAB = Lab(
    number=24,
    name="other-system",
    claim="A virtual machine can run an operating system that is not Linux, a container cannot.",
    why="A guest gets a processor and devices; a container gets the system calls of this kernel, and nothing else.",
    steps=(
        "write the smallest system: 34 bytes that print a sentence to the serial port, in the first sector of a disk",
        "start that disk as a guest, and read its console",
        "execute the same bytes in a container and on the host",
    ),
    rule="holds if the sentence is on the guest's console, and the container refuses to execute the file",
    modes=("host", "container", "vm"),
    gather=_gather,
    decide=_decide,
    next=(
        "memtest86+ or a BSD's disk: vmctl image import DISK, and vmctl console",
        "file(1) of the sector and of /bin/sh: what does execve(2) look for?",
        "binfmt_misc: when can a kernel execute a file that is not its own?",
    ),
)
