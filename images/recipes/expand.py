"""Variables in the texts of a build, by Docker's rules: $NAME, ${NAME}, ${NAME:-word}, ${NAME:+word}, ${NAME:?word}.

See docs.docker.com/reference/dockerfile/#environment-replacement.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Lookup = Callable[[str], str | None]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!$-]")
_MODIFIER = re.compile(r":?[-+?]")
_DEEPEST = 32  # of a word in a word in a word: ${A:-${B:-...}}


def expand(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """Return a word with its variables filled in and its quotes removed. Raises ValueError with what is wrong."""
    return _Expansion(text, lookup, escape).whole()


def expand_keeping_quotes(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """Return a text with its variables filled in; quotes have no meaning in it. Raises ValueError."""
    return _Expansion(text, lookup, escape, quotes=False).whole()


class _Expansion:
    """One text and the position in it."""

    def __init__(self, text: str, lookup: Lookup, escape: str, *, quotes: bool = True) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._lookup = lookup
        self._escape = escape
        self._quotes = quotes

    def whole(self) -> str:
        return self._until("")

    def _until(self, end: str) -> str:
        """Return the expanded text up to `end`, and continue behind it; '' is the end of the text."""
        done: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if end and letter == end:
                self._at += 1
                return "".join(done)
            done.append(self._piece(letter))
        if end:
            raise ValueError(f"{end} is missing in {self._text}")
        return "".join(done)

    def _piece(self, letter: str) -> str:
        if letter == "$":
            return self._variable()
        self._at += 1
        if letter == self._escape:
            return self._escaped("" if self._quotes else "$" + self._escape)
        if letter == "'" and self._quotes:
            return self._single()
        if letter == '"' and self._quotes:
            return self._double()
        return letter

    def _escaped(self, special: str) -> str:
        """Return the next character, escaped; `special`: the characters before which the escape has a meaning."""
        if self._at == len(self._text):
            return self._escape
        letter = self._text[self._at]
        self._at += 1
        return letter if not special or letter in special else self._escape + letter

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise ValueError(f"a quote is not closed in {self._text}")
        inside = self._text[self._at : end]
        self._at = end + 1
        return inside

    def _double(self) -> str:
        done: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == "$":
                done.append(self._variable())
                continue
            self._at += 1
            if letter == '"':
                return "".join(done)
            done.append(self._escaped('"$' + self._escape) if letter == self._escape else letter)
        raise ValueError(f"a quote is not closed in {self._text}")

    def _variable(self) -> str:
        self._at += 1  # the dollar
        if self._text.startswith("{", self._at):
            self._at += 1
            return self._braced()
        match = _NAME.match(self._text, self._at)
        if not match:
            return "$"
        self._at = match.end()
        return self._lookup(match[0]) or ""

    def _braced(self) -> str:
        match = _NAME.match(self._text, self._at)
        if not match:
            raise ValueError(f"${{ is not followed by a name in {self._text}")
        name, self._at = match[0], match.end()
        value = self._lookup(name)
        if self._text.startswith("}", self._at):
            self._at += 1
            return value or ""
        modifier = _MODIFIER.match(self._text, self._at)
        if not modifier:
            raise ValueError(
                f"${{{name}: expected }}, :-, :+ or :?, got {self._text[self._at : self._at + 1] or 'the end'}"
            )
        self._at = modifier.end()
        word = self._word()
        there = bool(value) if modifier[0].startswith(":") else value is not None
        if modifier[0].endswith("+"):
            return word if there else ""
        if not there and modifier[0].endswith("?"):
            raise ValueError(f"{name}: {word or 'it is not set'}")
        return (value or "") if there else word

    def _word(self) -> str:
        """Return what follows a modifier, expanded."""
        if self._depth == _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} variables are in each other in {self._text[:80]}")
        self._depth += 1
        word = self._until("}")
        self._depth -= 1
        return word
