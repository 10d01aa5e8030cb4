"""The headers of a tar that is written: those of a file with its attributes, in the pax form (tar(5))."""

from __future__ import annotations

import os
import stat
import tarfile
from decimal import Decimal

from images.layer.lookup import Node
from images.layer.tarball import KINDS, XATTR
from images.layer.tree import Attributes
from vmctl.errors import VmctlError

_TYPES = {kind: letter for letter, kind in KINDS.items()}
# the marks of overlayfs, and the host's SELinux policy
_LEFT_OUT = ("trusted.overlay.", "user.overlay.", "security.selinux")


def header(name: str, node: Node, hard_link: str = "", *, is_time_first: bool = False) -> bytes:
    """Return the headers of a file; `hard_link` is the name of the entry whose other name it is.

    The order of the records is a part of the digest: `is_time_first` puts the time in front of the attributes. Raises
    VmctlError for an extended attribute whose name is not UTF-8, which no pax record can have (pax(1)).
    """
    attributes = node.attributes
    info = tarfile.TarInfo(name)
    info.type = _TYPES[stat.S_IFMT(attributes.mode)]
    info.mode = stat.S_IMODE(attributes.mode)
    info.uid, info.gid = attributes.uid, attributes.gid
    info.mtime = attributes.mtime_ns // 10**9
    if hard_link:
        info.type, info.linkname = tarfile.LNKTYPE, hard_link
    elif info.isreg():
        info.size = node.size_bytes
    elif info.issym():
        info.linkname = os.fsdecode(node.target)
    elif info.ischr() or info.isblk():
        info.devmajor, info.devminor = os.major(node.device), os.minor(node.device)
    time, others = _time(attributes), _others(attributes)
    info.pax_headers = {**time, **others} if is_time_first else {**others, **time}
    try:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise VmctlError(f"{name}: the name of an extended attribute is not UTF-8: {error.object!a}") from None


def _time(attributes: Attributes) -> dict[str, str]:
    if not attributes.mtime_ns % 10**9:
        return {}
    return {"mtime": f"{Decimal(attributes.mtime_ns).scaleb(-9):f}"}


def _others(attributes: Attributes) -> dict[str, str]:
    return {
        XATTR + name: value.decode("utf-8", "surrogateescape")
        for name, value in sorted(attributes.xattrs.items())
        if not name.startswith(_LEFT_OUT)
    }
