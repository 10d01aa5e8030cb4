"""Times on the command line: --since and --until."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_ns(text: str) -> int:
    """Return nanoseconds since 1970 for a time, or for a duration before now. Raises argparse.ArgumentTypeError."""
    from vmctl.spec.units import parse_duration

    try:
        return time.time_ns() - int(parse_duration(text) * 1e9)
    except ValueError:
        pass
    try:
        if text.isascii() and text.replace(".", "", 1).isdigit():
            seconds, _, fraction = text.partition(".")  # exactly: a float of today has no nanoseconds
            return int(seconds or 0) * 10**9 + int(fraction[:9].ljust(9, "0"))
        return (datetime.fromisoformat(text).astimezone(UTC) - EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"expected a duration such as 10m, a time such as 2026-01-31T12:00:00Z or seconds since 1970, got {text!r}"
        ) from None
