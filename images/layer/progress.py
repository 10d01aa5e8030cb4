"""How far a long piece of work is, in a sentence."""

from __future__ import annotations

from collections.abc import Callable

from vmctl.spec.units import format_size

Progress = Callable[[str], None]


def meter(progress: Progress, sentence: str, size_bytes: int) -> Callable[[int], None]:
    """Return a function that reports how many of some bytes are done: `layer 2 of 5: 12.0 MiB of 450.0 MiB`."""
    total = format_size(size_bytes)
    return lambda count: progress(f"{sentence}: {format_size(count)} of {total}")
