"""Disks as images: qcow2 is copied; raw, VMDK and VHDX are converted to qcow2 by qemu-img(1).

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

from images.layer.progress import Progress, meter
from images.store.image import ImageError
from images.store.staging import Stage
from vmctl.run import CommandError, run
from vmctl.spec.units import format_size

_QEMU_IMG_S = 4 * 3600.0
_PART = 1 << 20
HEAD_BYTES = 65536 + 128  # enough to recognise every format
_MAGIC = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx"}
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
_QCOW2_EXTERNAL_DATA = 1 << 2  # incompatible feature; QEMU: docs/interop/qcow2.txt


def recognise(head: bytes, where: str) -> str:
    """Return "qcow2", "vmdk", "vhdx" or "raw" for the first bytes of a disk, "" if the file is not a disk.

    Raises ImageError if the disk needs other files.
    """
    if head.startswith(_VMDK_DESCRIPTOR):
        raise ImageError(f"{where} only describes a disk whose data is in other files", hint=_HINT)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            _refuse_others(head.ljust(HEAD_BYTES, b"\0"), kind, where)
            return kind
    is_raw = any(head[at : at + len(magic)] == magic for at, magic in _RAW_MAGIC.items())
    return "raw" if is_raw else ""


def _refuse_others(head: bytes, kind: str, where: str) -> None:
    other = ""
    if kind == "qcow2":
        version, backing = struct.unpack_from(">IQ", head, 4)
        features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
        if backing:
            other = "has a backing file"
        elif features & _QCOW2_EXTERNAL_DATA:
            other = "has its data in another file"
    if kind == "vmdk" and struct.unpack_from("<Q", head, 12)[0] == 0:  # capacity
        other = "only describes a disk whose data is in other files"
    if other:
        raise ImageError(f"{where} {other}, which is not supported", hint=_HINT)


def to_qcow2(stage: Stage, path: str, kind: str, progress: Progress) -> str:
    """Copy a disk into the stage as qcow2, named by its digest, and return the path of the copy.

    Raises ImageError if qemu-img(1) cannot read the disk or it needs other files, UnavailableError without qemu-img.
    """
    check(path, kind)
    if kind != "qcow2":
        convert(path, kind, stage.path("disk.converted"), "qcow2", progress)
        path = stage.path("disk.converted")
    new = stage.path("disk.new")
    final = stage.path(f"{_copy(path, new, progress)}.qcow2")
    os.chmod(new, 0o444)
    os.rename(new, final)
    return final


def check(path: str, kind: str) -> dict[str, Any]:
    """Return the output of `qemu-img info` for a disk. Raises ImageError if it is damaged or needs other files."""
    info: dict[str, Any] = json.loads(_qemu_img(path, "info", "--output=json", "-f", kind, os.path.abspath(path)))
    details = info.get("format-specific", {}).get("data", {})
    others = {extent.get("filename") for extent in details.get("extents", ())} - {os.path.abspath(path)}
    if info.get("backing-filename") or details.get("data-file") or others:
        raise ImageError(f"{path} needs other files, which is not supported", hint=_HINT)
    if info.get("encrypted"):
        raise ImageError(f"{path} is encrypted", hint="decrypt it with `qemu-img convert` and the key")
    return info


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
