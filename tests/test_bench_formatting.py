"""Numbers as text."""

import pytest

from bench.formatting import quantity


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "-"),
        (0.0, "s", "0.0 ms"),
        (7.53e-6, "s", "7.5 µs"),
        (0.0001, "s", "100 µs"),
        (0.0002143, "s", "214 µs"),
        (-0.0002143, "s", "-214 µs"),
        (0.00099949, "s", "999 µs"),
        (0.0009996, "s", "1.0 ms"),
        (0.00123, "s", "1.2 ms"),
        (2.345, "s", "2.35 s"),
        (1234.4, "count", "1,234"),
        (4029.3, "1/s", "4,029/s"),
        (0.5, "share", "50.0%"),
        (2048, "bytes", "2.0 KiB"),
        (2048, "bytes/s", "2.0 KiB/s"),
    ],
)
def test_a_quantity(value, unit, text):
    assert quantity(value, unit) == text
