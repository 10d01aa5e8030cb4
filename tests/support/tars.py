"""Tars as a test wants them, byte by byte."""

import io
import tarfile


def tar_of(*entries, form=tarfile.PAX_FORMAT):
    """Return a tar of (name, {attribute: value}, content) entries, in their order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, attributes, *content in entries:
            info = tarfile.TarInfo(name)
            data = content[0] if content else b""
            info.size = len(data)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def folder(name, **attributes):
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **attributes}


def link(name, target):
    return name, {"type": tarfile.SYMTYPE, "linkname": target}


def fifo(name):
    return name, {"type": tarfile.FIFOTYPE, "mode": 0o644}


def hard(name, target):
    return name, {"type": tarfile.LNKTYPE, "linkname": target}
