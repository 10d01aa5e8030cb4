"""Parameters of a lab's steps that the seed of a record draws, so that the runs of two students differ.

The same seed gives the same parameters on every machine: `vmctl lab check` draws them again, and compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

Choices = Mapping[str, Sequence[int]]  # name -> values; the first one is that of a run without a seed
NONE: Choices = {}
_EVIDENCE = "parameter: "


def drawn(seed: str, lab: str, choices: Choices) -> dict[str, int]:
    """Return the value of each parameter of a lab, by its name."""
    return {name: values[_number(seed, lab, name) % len(values) if seed else 0] for name, values in choices.items()}


def _number(seed: str, lab: str, name: str) -> int:
    text = "\0".join((seed, lab, name))
    return int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def evidence(values: Mapping[str, int]) -> dict[str, str]:
    """Return parameters as evidence."""
    return {f"{_EVIDENCE}{name}": str(value) for name, value in values.items()}
