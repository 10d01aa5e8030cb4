"""The folder that a measurement is written to: made before anything is measured, held by one at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vmctl.errors import ConflictError, SpecError, VmctlError
from vmctl.linux.filetree import write_atomic


def make(folder: str) -> None:
    """Make a folder where it is missing. Raises SpecError where that cannot be, or nothing can be written there."""
    try:
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):  # also root's answer for a file system that is read-only
            raise PermissionError(0, "it is not writable")
    except OSError as error:
        raise SpecError(
            f"{folder} cannot be the folder of what is measured: {error.strerror}", hint="`--out DIR` names another"
        ) from None


def check_file(path: str) -> None:
    """Raise SpecError where a file cannot be written, in words about that file; nothing is written."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        reason = "it is a folder"
    elif not os.path.isdir(folder):
        reason = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"the folder {folder} is not writable"
    else:
        return
    raise SpecError(f"{path} cannot be written: {reason}", hint="`--out FILE` names another")


@contextmanager
def held(folder: str) -> Iterator[None]:
    """Hold a folder; a lock ends with its holder (flock(2)). Raises ConflictError where somebody measures there now."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another vmctl measures into {folder} now", hint="wait for its end, or name another folder"
            ) from None
        yield
    finally:
        os.close(fd)


def write(folder: str, name: str, document: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Write NAME.json, which has every raw sample, and NAME.md, which has the tables, into a folder.

    Raises VmctlError where that cannot be: a disk that has become full meanwhile.
    """
    texts = {f"{name}.json": json.dumps(document, indent=1), f"{name}.md": "\n".join(lines)}
    for file, text in texts.items():
        path = os.path.join(folder, file)
        try:
            write_atomic(path, f"{text}\n")
        except OSError as error:
            raise VmctlError(f"{path} cannot be written: {error.strerror}", hint="`--out DIR` names another") from None
