"""Tars as a test wants them, byte by byte."""

import io
import os
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


def traversals(victim):
    """Return name -> entries of a tar that overwrite `victim` if they are unpacked without care."""
    up, name = "../" * 12, os.path.basename(victim)
    content = b"overwritten"
    return {
        "absolute": [(victim, {}, content)],
        "upwards": [(f"{up}{victim.lstrip('/')}", {}, content)],
        "upwards later": [folder("a"), (f"a/{up}{victim.lstrip('/')}", {}, content)],
        "file through a link": [link("out", os.path.dirname(victim)), (f"out/{name}", {}, content)],
        "file through two links": [
            *(link("a", up.rstrip("/")), link("b", "a" + os.path.dirname(victim)), (f"b/{name}", {}, content)),
        ],
        "over a link": [link("out", victim), ("out", {}, content)],
        "hard link": [hard("out", victim), ("out", {}, content)],
        "hard link upwards": [hard("out", up + victim.lstrip("/")), ("out", {}, content)],
        "whiteout": [(f"{up}{os.path.dirname(victim).lstrip('/')}/.wh.{name}", {})],
        "whiteout through a link": [link("out", os.path.dirname(victim)), (f"out/.wh.{name}", {})],
        "opaque through a link": [link("out", os.path.dirname(victim)), ("out/.wh..wh..opq", {})],
        "whiteout of the folder above": [("a/.wh...", {}), (".wh..", {})],
    }
