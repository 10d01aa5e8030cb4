"""The steps of a start, for people: `vmctl up --explain`."""

from __future__ import annotations

from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Literal


class Step(NamedTuple):
    """A step of `vmctl up --explain`: what happens, the lines that one would type for it, and the reason."""

    what: str
    raw: str
    why: str = ""
    phase: str = ""  # name of its phase of the start (vmctl/phases.py)
    place: Literal["host", "inside", "guest"] = "host"  # where the lines are typed
    undo: str = ""  # what takes away what the step has made on the host: one line
    short: str = ""  # the same call in the words of the trace, without what a shell needs around it
