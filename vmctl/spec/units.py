"""Sizes and durations: text for users, bytes and seconds in the code."""

from __future__ import annotations

_DIGITS, _BLANKS = "0123456789", " \t\n\r\f\v"
_SIZE_FACTOR = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_AGES = (
    ("year", 365 * 86400),
    ("month", 30 * 86400),
    ("week", 7 * 86400),
    ("day", 86400),
    ("hour", 3600),
    ("minute", 60),
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES_MAX = 1 << 62  # what a signed number of 64 bits holds, with room for a sum
_SECONDS_MAX = 10 * 365 * 86400  # more than any host runs; the kernel's timers take more


def parse_size(text: str) -> int:
    """Return bytes; 64m, 64M, 64MB and 64MiB are the same: powers of 1024, as with docker. Raises ValueError."""
    number, unit = _split(text)
    unit = unit.upper().removesuffix("B")
    factor = _SIZE_FACTOR.get(unit[:1] if unit[1:] in ("", "I") else "?")
    if number is None or factor is None:
        raise ValueError(f"a size such as 256M or 1.5GiB, not {text[:40]!r}")
    size_bytes = number * factor
    if size_bytes > _BYTES_MAX:
        raise ValueError(f"a size of at most 4194304T, not {text[:40]!r}")
    return int(size_bytes)


def parse_duration(text: str) -> float:
    """Return seconds; the unit (ms, s, m, h) is required. Raises ValueError."""
    number, unit = _split(text)
    if number is None or unit not in _SECONDS:
        raise ValueError(f"a duration such as 500ms, 60s or 2m, not {text[:40]!r}")
    seconds = number * _SECONDS[unit]
    if seconds > _SECONDS_MAX:
        raise ValueError(f"a duration of at most 10 years, not {text[:40]!r}")
    return seconds


def _split(text: str) -> tuple[float | None, str]:
    """Return number and unit of a text such as `1.5 GiB`, or (None, "?"); without `re`, which takes 5 ms to import."""
    text = text.strip()
    unit = text.lstrip(f"{_DIGITS}.")
    whole, point, part = text[: len(text) - len(unit)].partition(".")
    if not text.isascii() or not whole.isdigit() or (point and not part.isdigit()):
        return None, "?"
    return float(f"{whole}{point}{part}"), unit.lstrip(_BLANKS)


def exact_size(size_bytes: float) -> str:
    """Return a size as `parse_size` reads it, in the largest unit that divides it: '128K', '1M', '1000'."""
    for unit, factor in reversed(_SIZE_FACTOR.items()):
        if abs(size_bytes) >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor:.0f}{unit}"
    return f"{size_bytes:g}"


def format_size(size_bytes: float) -> str:
    """Return a readable size such as '1.5 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Return a readable duration such as '41 ns', '3.2 ms', '5.7 s' or '2m 03s'."""
    if 0 < seconds < 1e-4:
        return f"{seconds * 1e9:.0f} ns" if seconds < 1e-6 else f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def format_age(seconds: float) -> str:
    """Return a readable age such as '3 weeks', in the largest unit that it contains twice, as docker does."""
    for unit, length in _AGES:
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s"
    return f"{int(seconds)} second{'' if int(seconds) == 1 else 's'}"
