"""What a guest wrote to its console, made fit for a terminal: it may have sent anything."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")  # CSI, OSC, others: ECMA-48


def lines(text: str) -> list[str]:
    """Return the lines, without colours and whatever else is not to be printed."""
    return ["".join(filter(str.isprintable, _SEQUENCE.sub("", line))) for line in text.splitlines()]
