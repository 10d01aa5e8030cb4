"""Read small text files that users write, with a clear error if one is not readable, too large or not UTF-8."""

from __future__ import annotations

import os

from vmctl.errors import SpecError
from vmctl.spec.units import format_size

MAX_BYTES = 1 << 20


def read(path: str, what: str, *, stdin: bool = False) -> bytes:
    """Return a file's content; `what` names the kind of file in errors. Raises SpecError if unreadable or too large."""
    try:
        raw = content(path, MAX_BYTES, stdin=stdin)
    except OSError as error:
        raise SpecError(f"the {what} {path} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{path} is larger than {format_size(MAX_BYTES)}, too large for a {what}")
    return raw


def content(path: str, most_bytes: int, *, stdin: bool = False) -> bytes:
    """Return a file's content, at most one byte more than `most_bytes`. Raises OSError.

    A pipe is read to its end; a FIFO that nobody writes to is empty, and not waited for. `stdin`: read standard input
    instead of the file.
    """
    fd = os.dup(0) if stdin else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        os.set_blocking(fd, True)
        return file.read(most_bytes + 1)


def decoded(raw: bytes, path: str, what: str) -> str:
    """Return content as text without a byte order mark. Raises SpecError with FILE:LINE if it is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{path}:{line}: not UTF-8 text", hint=f"is this a {what}?") from None
