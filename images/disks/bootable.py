"""Whether a guest can boot from a disk image: guests have a BIOS, which executes the code of the first sector."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

from images.disks import partitions
from vmctl.programs import run

_HEAD_BYTES = 1 << 20  # with the tables of partitions, which GPT has in the first 34 sectors


def problem(path: str) -> str:
    """Return why a BIOS cannot boot from a qcow2 disk, "" if it has boot code. Raises ImageError, CommandError."""
    with TemporaryDirectory(prefix="vmctl-") as folder:
        head = os.path.join(folder, "head")
        words = ["dd", "-f", "qcow2", "-O", "raw", f"bs={_HEAD_BYTES}", "count=1", f"if={path}", f"of={head}"]
        run(["qemu-img", *words])
        with open(head, "rb") as file:
            if partitions.has_boot_code(file.read(partitions.SECTOR_BYTES)):
                return ""
        return (
            "it has only a boot loader for EFI, and guests have a BIOS"
            if partitions.has_efi(head)
            else "it has no boot code"
        )
