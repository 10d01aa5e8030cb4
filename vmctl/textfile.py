"""Small files that people write: read whole, with one sentence for whatever is wrong with them."""

from __future__ import annotations

from vmctl.errors import SpecError
from vmctl.units import format_size

MAX_BYTES = 1 << 20


def read(path: str, what: str) -> bytes:
    """Return a file's content. Raises SpecError where it cannot be read, or is too large to be `what` it should be."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"the {what} {path} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{path} is larger than {format_size(MAX_BYTES)}: this is no {what}")
    return raw


def decoded(raw: bytes, path: str, what: str) -> str:
    """Return a content as text, without a byte order mark. Raises SpecError with FILE:LINE where it is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{path}:{line}: this is not UTF-8 text", hint=f"is this a {what}?") from None
