"""Disks as images: qcow2 is copied; raw, VMDK, VHDX, VHD and VDI are converted to qcow2 by qemu-img(1).

The header of a disk file can refer to other files, such as /etc/shadow, which would then be read as part of the disk.
So headers are checked here before qemu-img opens the file, and a disk that needs other files is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from typing import Any

from images.disks import partitions
from images.layer.progress import Progress, meter
from images.store.image import ImageError
from images.store.staging import Stage
from vmctl.programs import CommandError, run
from vmctl.spec.units import format_size

_QEMU_IMG_S = 4 * 3600.0
_PART = 1 << 20
HEAD_BYTES = 65536 + 128  # enough to recognise every format
VHD = b"conectix"  # of its footer, which a VHD of fixed size has at the end only
_VHD_BYTES = 512
_MAGIC = (  # offset, bytes, format as qemu-img(1) calls it
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, VHD, "vpc"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)
_UNREAD = (  # the same, of formats that are not read
    (0, b"QFI\xfb\0\0\0\1", "qcow"),
    (0, b"QED\0", "qed"),
    (0, b"COWD", "vmdk"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
)
_CD = (32769, b"CD001")  # ISO 9660
_BOOT_SECTOR = (510, b"\x55\xaa")
_VMDK_DESCRIPTOR = b"# Disk DescriptorFile"
_EXT4_MAGIC_AT, _EXT4_MAGIC = 1024 + 56, b"\x53\xef"
_RAW_MAGIC = {  # offset -> bytes of a raw disk: boot sector or protective MBR, ext4, XFS, EROFS, btrfs
    510: b"\x55\xaa",
    _EXT4_MAGIC_AT: _EXT4_MAGIC,
    0: b"XFSB",
    1024: b"\xe2\xe1\xf5\xe0",
    65536 + 64: b"_BHRfS_M",
}
_HINT = "if you trust the files it refers to, `qemu-img convert -O qcow2` makes a single file"
_CHECK_PASSED = (0, 3, 63)  # qemu-img(1): no errors; only space is lost; this format has no check
_QCOW2_EXTERNAL_DATA = 1 << 2  # incompatible feature; QEMU: docs/interop/qcow2.txt


def recognise(head: bytes, where: str) -> str:
    """Return the format of a disk, as qemu-img(1) calls it, for its first bytes; "" if the file is not a disk.

    Raises ImageError if the disk needs other files, or is in a format that is not read.
    """
    if head.startswith(_VMDK_DESCRIPTOR):
        raise ImageError(f"{where} only describes a disk whose data is in other files", hint=_HINT)
    for at, magic, kind in _UNREAD:
        if head.startswith(magic, at):
            new = f"{os.path.basename(where)}.qcow2"
            raise ImageError(
                f"{where} is a disk in the format {kind}, which is not read directly",
                hint=f"`qemu-img convert -f {kind} -O qcow2 {where} {new}`, then import {new}",
            )
    for at, magic, kind in _MAGIC:
        if head.startswith(magic, at):
            _refuse_others(head.ljust(HEAD_BYTES, b"\0"), kind, where)
            return kind
    if head.startswith(_CD[1], _CD[0]) and not head.startswith(_BOOT_SECTOR[1], _BOOT_SECTOR[0]):
        raise ImageError(f"{where} is the image of a CD, not a disk", hint="import a disk on which it was installed")
    return "raw" if any(head.startswith(magic, at) for at, magic in _RAW_MAGIC.items()) else ""


def recognise_file(path: str, where: str) -> str:
    """Return the format of a disk like `recognise`, also of one that has its mark at the end."""
    with open(path, "rb") as file:
        kind = recognise(file.read(HEAD_BYTES), where)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _VHD_BYTES))
        return "vpc" if kind == "raw" and file.read(len(VHD)) == VHD else kind


def _refuse_others(head: bytes, kind: str, where: str) -> None:
    other = ""
    if kind == "qcow2":
        version, backing = struct.unpack_from(">IQ", head, 4)
        features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
        if backing:
            other = "has a backing file"
        elif features & _QCOW2_EXTERNAL_DATA:
            other = "has its data in another file"
    if kind == "vpc" and struct.unpack_from(">I", head, 60)[0] == 4:  # a differencing disk
        other = "only contains the differences from another disk"
    if kind == "vdi" and struct.unpack_from("<I", head, 76)[0] == 4:
        other = "only contains the differences from another disk"
    if kind == "vmdk" and struct.unpack_from("<Q", head, 12)[0] == 0:  # capacity
        other = "only describes a disk whose data is in other files"
    if other:
        raise ImageError(f"{where} {other}, which is not supported", hint=_HINT)


def to_qcow2(stage: Stage, path: str, kind: str, progress: Progress) -> str:
    """Copy a disk into the stage as qcow2, named by its digest, and return the path of the copy.

    The disk has passed `check`. Raises ImageError if qemu-img(1) cannot read it, UnavailableError without qemu-img.
    """
    if kind != "qcow2":
        convert(path, kind, stage.path("disk.converted"), "qcow2", progress)
        path = stage.path("disk.converted")
    new = stage.path("disk.new")
    final = stage.path(f"{_copy(path, new, progress)}.qcow2")
    os.chmod(new, 0o444)
    os.rename(new, final)
    return final


def check(path: str, kind: str, where: str) -> None:
    """Raise ImageError if a disk is damaged, encrypted or needs other files; `where` is its name in errors."""
    try:
        info: dict[str, Any] = json.loads(_qemu_img(path, "info", "--output=json", "-f", kind, os.path.abspath(path)))
    except ImageError:
        _refuse_damaged(path, kind, where)  # with more of the reason
        raise
    details = info.get("format-specific", {}).get("data", {})
    others = {extent.get("filename") for extent in details.get("extents", ())} - {os.path.abspath(path)}
    if info.get("backing-filename") or details.get("data-file") or others:
        raise ImageError(f"{where} needs other files, which is not supported", hint=_HINT)
    if info.get("encrypted"):
        raise ImageError(f"{where} is encrypted", hint="decrypt it with `qemu-img convert` and the key")
    _refuse_damaged(path, kind, where)


def _refuse_damaged(path: str, kind: str, where: str) -> None:
    """Raise ImageError for a disk with wrong tables or a missing end, which would be read as zeros."""
    again = "copy it again from where it came"
    if kind != "raw":
        words = ["qemu-img", "check", "--output=json", "-f", kind, os.path.abspath(path)]
        code, output, errors = run(words, check=False, timeout_s=_QEMU_IMG_S)
        if code not in _CHECK_PASSED:
            first = (errors.strip() or output or f"code {code}").splitlines()[0].removeprefix("qemu-img: ")
            raise ImageError(
                f"{where} is damaged or cut off: {first.replace(os.path.abspath(path), where)}",
                hint=f"{again}; `qemu-img check -f {kind} {where}` shows all errors",
            )
    least_bytes = partitions.least_bytes(path) if kind == "raw" else _least_bytes(path, kind)
    if least_bytes > (size_bytes := os.path.getsize(path)):
        raise ImageError(
            f"{where} is cut off: it has {format_size(size_bytes)} of {format_size(least_bytes)}",
            hint=f"{again}; if only zeros are missing: `truncate -s {least_bytes} {where}`" if kind == "raw" else again,
        )


def _least_bytes(path: str, kind: str) -> int:
    """Return where the last data of a disk ends in its file: for some formats `qemu-img check` does not look."""
    if kind == "qcow2":
        return 0  # it does
    entries = json.loads(_qemu_img(path, "map", "--output=json", "-f", kind, os.path.abspath(path)))
    return max((entry["offset"] + entry["length"] for entry in entries if "offset" in entry), default=0)


def convert(source: str, kind: str, target: str, target_kind: str, progress: Progress) -> None:
    """Convert a disk to another format, with zeros as holes. Raises ImageError if qemu-img(1) fails."""

    def report(_: int) -> None:
        if os.path.exists(target):
            progress(f"converting {source}: {format_size(os.stat(target).st_blocks * 512)} written")

    _qemu_img(source, "convert", "-f", kind, "-O", target_kind, os.path.abspath(source), target, tick=report)


def _qemu_img(path: str, *words: str, tick: Callable[[int], None] | None = None) -> str:
    try:
        return run(["qemu-img", *words], timeout_s=_QEMU_IMG_S, tick=tick)[1]
    except CommandError as error:
        raise ImageError(f"the disk {path} cannot be read: {error.reason.removeprefix('qemu-img: ')}") from None


def _copy(path: str, target: str, progress: Progress) -> str:
    """Copy a file and return the hexadecimal SHA-256 of the copy."""
    report = meter(progress, f"copying {os.path.basename(path)}", os.path.getsize(path))
    state = hashlib.sha256()
    with open(path, "rb", buffering=0) as source, open(target, "xb", buffering=0) as file:
        while data := source.read(_PART):
            state.update(data)
            file.write(data)
            report(source.tell())
    return state.hexdigest()
