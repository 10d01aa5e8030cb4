"""The folder that a measurement is written to: made before anything is measured, locked by one vmctl at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vmctl.errors import ConflictError, SpecError, VmctlError
from vmctl.linux.filetree import write_atomic

_HINT = "`--out DIR` chooses another folder"


def make(folder: str) -> None:
    """Make a folder unless it exists. Raises SpecError if it cannot be made or is not writable."""
    try:
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):  # for root, too, if the file system is read-only
            raise PermissionError(0, "it is not writable")
    except FileExistsError:
        raise SpecError(f"cannot write results to {folder}: a file of that name exists", hint=_HINT) from None
    except OSError as error:
        raise SpecError(f"cannot write results to {folder}: {error.strerror}", hint=_HINT) from None


def check_file(path: str) -> None:
    """Raise SpecError with the reason if a file cannot be written. It writes nothing."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        reason = "it is a folder"
    elif not os.path.isdir(folder):
        reason = f"the folder {folder} does not exist"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"the folder {folder} is not writable"
    else:
        return
    raise SpecError(f"cannot write {path}: {reason}", hint="`--out FILE` chooses another file")


@contextmanager
def held(folder: str) -> Iterator[None]:
    """Lock a folder; the lock ends with this process (flock(2)). Raises ConflictError if another vmctl has it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another vmctl is measuring into {folder}", hint="wait until it ends, or choose another folder"
            ) from None
        yield
    finally:
        os.close(fd)


def write(folder: str, name: str, document: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Write NAME.json with every raw sample, and NAME.md with the tables, into a folder.

    Raises VmctlError if a file cannot be written, for instance because the disk is full.
    """
    texts = {f"{name}.json": json.dumps(document, indent=1), f"{name}.md": "\n".join(lines)}
    for file, text in texts.items():
        path = os.path.join(folder, file)
        try:
            write_atomic(path, f"{text}\n")
        except OSError as error:
            raise VmctlError(f"cannot write {path}: {error.strerror}", hint=_HINT) from None
