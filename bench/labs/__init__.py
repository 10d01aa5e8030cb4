"""Claims about containers and guests, each put to the test on this machine: one file per lab, found by its name.

A file `labNN_NAME.py` has one object `LAB`. To add a lab, add its file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from bench.labs.lab import Lab
from vmctl.errors import NotFoundError

IMAGES = ("tiny", "debian")  # that the labs start
_FILE = re.compile(r"lab([0-9]{2})_([a-z_]+)\.py", re.ASCII)


def labs() -> list[Lab]:
    """Return all labs, by number."""
    names = sorted(filter(_FILE.fullmatch, os.listdir(os.path.dirname(__file__))))
    found = [import_module(f"{__name__}.{name.removesuffix('.py')}").LAB for name in names]
    return [lab for lab in found if isinstance(lab, Lab)]


@cache
def digests() -> Mapping[str, str]:
    """Return the SHA-256 of each lab's file, by its name: labs of two machines with the same one decide alike."""
    found = {}
    for match in sorted(filter(None, map(_FILE.fullmatch, os.listdir(os.path.dirname(__file__)))), key=str):
        with open(os.path.join(os.path.dirname(__file__), match[0]), "rb") as file:
            found[match[2].replace("_", "-")] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def find(text: str) -> Lab:
    """Return the lab with a number or a name. Raises NotFoundError."""
    for lab in labs():
        if text in (str(lab.number), lab.name):
            return lab
    raise NotFoundError(f"there is no lab {text}", hint="`vmctl lab ls` lists them")
