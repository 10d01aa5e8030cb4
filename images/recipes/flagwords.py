"""The forms of words that several instructions share: flags in front, and JSON lists."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence


def flags(text: str, known: Sequence[str], several: str = "") -> tuple[dict[str, str], str]:
    """Return the flags that a text begins with, and the rest. Raises ValueError for a flag that is not known.

    The values of the flag `several`, which can be given more than once, are in one text, with spaces between them.
    A flag without a value is "true".
    """
    found: dict[str, str] = {}
    while match := re.match(r"--([a-z-]+)(?:=(\S*))?(?:\s+|$)", text):
        name, text = match[1], text[match.end() :]
        value = match[2] if match[2] is not None else "true"
        if name not in known:
            raise ValueError(f"the flag --{name} is not supported; supported: {_listed(known)}")
        if name in found and name != several:
            raise ValueError(f"the flag --{name} is given twice")
        found[name] = f"{found[name]} {value}" if name in found else value
    return found, text


def _listed(known: Sequence[str]) -> str:
    return ", ".join(f"--{name}" for name in known) or "none"


def json_words(text: str) -> tuple[str, ...] | None:
    """Return the texts of a JSON list, None for anything else."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(words) if all(isinstance(word, str) for word in words) else None


def boolean(found: dict[str, str], name: str, default: bool = False) -> bool:
    """Return a flag that is on or off. Raises ValueError."""
    if name not in found:
        return default
    word = found[name].lower()
    if word not in ("true", "false", "1", "0"):
        raise ValueError(f"--{name}: expected true or false, got {found[name][:40]}")
    return word in ("true", "1")
