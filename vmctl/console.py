"""Make the output of a guest's console safe for a terminal: the guest may have written any bytes."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")  # CSI, OSC, others: ECMA-48


def lines(text: str) -> list[str]:
    """Return the lines without escape sequences and other characters that cannot be printed."""
    return ["".join(filter(str.isprintable, _SEQUENCE.sub("", line))) for line in text.splitlines()]


def visible(text: str) -> str:
    """Return a text without anything that acts on a terminal; its lines stay, and a tab becomes a space."""
    if text.isprintable():
        return text
    return "\n".join("".join(lines(line.replace("\t", " "))) for line in text.split("\n"))
