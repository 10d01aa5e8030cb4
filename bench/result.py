"""Results on disk: `result.json`, checked against its classes when it is read, and its schema."""

from __future__ import annotations

import errno
import os
from typing import Any

import msgspec

from bench.model import FORMAT, FORMATS, Result
from vmctl.errors import SpecError
from vmctl.linux import filetree
from vmctl.spec import textfile

NAME = "result.json"
MAX_BYTES = 256 << 20  # a result of 100 rounds has 2 MiB


def path_of(place: str) -> str:
    """Return the path of `result.json` in a folder; the path of a file as it is."""
    return os.path.join(place, NAME) if os.path.isdir(place) else place


def read(place: str) -> Result:
    """Return the result in a file or folder. Raises SpecError if it is missing, damaged, or of another version."""
    path = path_of(place)
    try:
        document = msgspec.json.decode(content(path, regular=path != place))
        found = document.get("format") if isinstance(document, dict) else None
        if found not in FORMATS:
            raise SpecError(
                f"{path} is not a result of this version of vmctl: its format is {found!r}, expected {FORMAT!r}",
                hint="measure again, or read it with the version of vmctl that wrote it",
            )
        return msgspec.convert(document, Result)
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read: {error.strerror}", hint="`vmctl bench SPEC --out DIR` writes a result"
        ) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SpecError(
            f"{path} is damaged: {error}", hint="`vmctl bench --resume DIR` writes it again from the samples"
        ) from None


def content(path: str, *, regular: bool = True) -> bytes:
    """Return the content of a file of a measurement, which may have been handed in. Raises OSError if it is too large.

    `regular`: raises it also for a FIFO or a device, unless the user has named it.
    """
    if regular:
        with open(filetree.open_file(path), "rb") as file:
            found = file.read(MAX_BYTES + 1)
    else:
        found = textfile.content(path, MAX_BYTES)
    if len(found) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES >> 20} MiB", path)
    return found


def write(result: Result, folder: str) -> str:
    """Write `result.json` into a folder, make the folder if it is missing, and return the path of the file."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, NAME)
    filetree.write_atomic(path, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `result.json`; bench/result.schema.json is a copy of it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Result)}
