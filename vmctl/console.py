"""Make text of a workload, an image or a guest safe for a terminal: it may contain any bytes.

Escape sequences are those of ECMA-48. Attached commands (`run`, `exec`, `shell`) are not filtered: the terminal is then
the workload's.
"""

from __future__ import annotations

from vmctl.light import pattern
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from re import Match

_CSI, _OSC = r"\[[0-?]*[ -/]*[@-~]", r"[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC: they have a text
_SEQUENCE = pattern(rf"\x1b(?:{_CSI}|{_OSC}|.)")
_COLOUR = pattern(r"\x1b\[([0-9;:]*)m")  # SGR
_CONCEALED = "8"
_PARTS = pattern(rf"(?s)\x1b(?:{_CSI}|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]PX^_])|\r\n|[^ -~]")
_UNFINISHED = pattern(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?)?\Z|\r\Z")
_UNFINISHED_MAX = 4096  # characters of a sequence that are waited for
_RESET = "\x1b[0m"


def lines(text: str) -> list[str]:
    """Return the lines without escape sequences and other characters that cannot be printed."""
    return ["".join(filter(str.isprintable, _SEQUENCE.sub("", line))) for line in text.splitlines()]


def visible(text: str) -> str:
    """Return a text in which what acts on a terminal is written as an escape, such as \\x1b; its lines stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]


class Filter:
    """A stream of bytes on its way to a terminal: of all escape sequences only those for colours are kept."""

    def __init__(self) -> None:
        from codecs import getincrementaldecoder

        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        """Return the part that can be shown by now."""
        text = self._rest + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        cut = unfinished.start() if unfinished and len(text) - unfinished.start() <= _UNFINISHED_MAX else len(text)
        self._rest = text[cut:]
        return _PARTS.sub(self._shown, text[:cut]).encode(errors="replace")

    def end(self) -> bytes:
        """Return the rest, and the reset of colours if there were any."""
        rest = _PARTS.sub(self._shown, self._rest + self._decoder.decode(b"", final=True))
        self._rest, coloured, self._coloured = "", self._coloured, False
        return (rest + _RESET * coloured).encode(errors="replace")

    def _shown(self, found: Match[str]) -> str:
        part = found[0]
        if len(part) == 1:
            return part if part.isprintable() or part in "\n\t" else _escaped(part)
        if part == "\r\n":
            return "\n"
        colour = _COLOUR.fullmatch(part)
        # also as part of a colour: it is then lost
        if colour is None or _CONCEALED in colour[1].replace(":", ";").split(";"):
            return ""
        self._coloured = True
        return part
