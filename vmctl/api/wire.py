"""Messages between a program and the process that does its request: lines of JSON over a socket.

A request is one line; answers are lines `[event, values]`, the last of which is `done` or `failed`.
"""

from __future__ import annotations

import math
import select
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

from vmctl import errors
from vmctl.errors import VmctlError
from vmctl.light import json

DONE, FAILED = "done", "failed"
LONGEST_BYTES = 64 << 20  # of a line


class _HasNumber(Protocol):
    def fileno(self) -> int: ...


Waited = TypeVar("Waited", bound="int | _HasNumber")


class Interrupted(VmctlError):  # noqa: N818
    """A request was asked to end before it had."""


class Internal(VmctlError):  # noqa: N818
    """A mistake of vmctl; `detail` is its traceback."""


def line(value: object) -> bytes:
    """Return a message."""
    return json.dumps(value).encode() + b"\n"


class Lines:
    """Puts what is read together to messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the messages that are complete. Raises Internal for one without an end."""
        while data:
            head, newline, data = data.partition(b"\n")
            self._parts.append(head)
            self._size += len(head)
            if self._size > LONGEST_BYTES:
                raise Internal("a message is too long")
            if newline:
                whole, self._parts, self._size = b"".join(self._parts), [], 0
                yield json.loads(whole)


def readable(waiting: Sequence[Waited], timeout_s: float | None) -> list[Waited]:
    """Return those that can be read, after `timeout_s` none: by poll(2), as select(2) knows 1024 descriptors only."""
    poller = select.poll()
    by_number = {one if isinstance(one, int) else one.fileno(): one for one in waiting}
    for number in by_number:
        poller.register(number, select.POLLIN)
    ready = poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1000))
    return [by_number[number] for number, _ in ready]


def of_error(error: VmctlError) -> dict[str, Any]:
    """Return an error as values; its types are named from the most special one on."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"kinds": kinds, "text": str(error), "hint": error.hint, "detail": error.detail, "code": error.exit_code}


def to_error(values: dict[str, Any]) -> VmctlError:
    """Return the error of such values: the most special type that is known here."""
    known = {"Interrupted": Interrupted, "Internal": Internal}
    kind = VmctlError
    for name in values["kinds"]:
        found = known.get(name) or getattr(errors, name, None)
        if isinstance(found, type) and issubclass(found, VmctlError):
            kind = found
            break
    error = kind.__new__(kind)
    VmctlError.__init__(error, values["text"], hint=values["hint"], detail=values["detail"])
    error.exit_code = values["code"]
    for note in (values["detail"], values["hint"] and f"hint: {values['hint']}"):  # Python shows them in a traceback
        if note:
            error.add_note(_visible(note))
    return error


def _visible(text: str) -> str:
    from vmctl.console import visible  # texts of images, guests and workloads can be part of an error

    return visible(text)
