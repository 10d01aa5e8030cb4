"""Inputs made from good ones: bytes and lines changed, moved and repeated, numbers and words of the format put in."""

import re

NUMBERS = (b"0", b"-1", b"9" * 400, b"1e9", b"1e999", b"nan", b"inf", b"4294967295", b"4294967296", b"0x", b"1" * 20)
BYTES = (b"\0", b"\xff", b"\x1b[2J", b"\n", b"\r", b"\xe2\x80\xa8", b"'", b'"', b"\\", b"`", b"$", b"{", b"[", b"../")
STRANGE = (
    "\u0663",
    "\u00b2",
    "\u2460",
    "\U0001d7d8",
    "\ud800",
    "\u0130",
    "\x85",
    "\x1c",
    "\ufeff",
)  # digits, ends of lines
_PIECES = tuple(text.encode("utf-8", "surrogatepass") for text in STRANGE)
_NUMBER = re.compile(rb"\d+")
SIZE_MAX = 1 << 16


def mutated(target, random):
    """Return one input for a target."""
    data = random.choice(target.seeds)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5, 9))):
        data = random.choice(_WAYS)(data, target, random)
    return data[:SIZE_MAX]


def _span(data, random):
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 1, 2, 4, 16, 64, 512)))


def _insert(data, target, random):
    start = random.randrange(len(data) + 1)
    return data[:start] + _piece(target, random) + data[start:]


def _replace(data, target, random):
    start, end = _span(data, random)
    return data[:start] + _piece(target, random) + data[end:]


def _piece(target, random):
    return random.choice(random.choice((target.words or BYTES, BYTES, _PIECES, NUMBERS)))


def _number(data, target, random):
    found = list(_NUMBER.finditer(data))
    if not found:
        return _insert(data, target, random)
    match = random.choice(found)
    return data[: match.start()] + random.choice((*NUMBERS, *_PIECES)) + data[match.end() :]


def _delete(data, target, random):
    start, end = _span(data, random)
    return data[:start] + data[end:]


def _repeat(data, target, random):
    start, end = _span(data, random)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 100)) + data[end:]


def _flip(data, target, random):
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _line(data, target, random):
    """Move, drop or repeat a line."""
    lines = data.split(b"\n")
    line = lines.pop(random.randrange(len(lines)))
    for _ in range(random.choice((0, 1, 2))):
        lines.insert(random.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


def _cut(data, target, random):
    return data[: random.randrange(len(data) + 1)]


def _splice(data, target, random):
    other = random.choice(target.seeds)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


_WAYS = (_insert, _insert, _replace, _replace, _number, _number, _delete, _repeat, _flip, _flip, _line, _cut, _splice)
