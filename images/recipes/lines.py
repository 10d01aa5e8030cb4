"""The lines of a Dockerfile: comments, continuations and here-documents resolved, nothing parsed yet.

See docs.docker.com/reference/dockerfile. PyPI's dockerfile-parse was tried: it parses the lines of a here-document as
instructions, and silently drops a line that it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vmctl.errors import SpecError
from vmctl.spec import textfile

STDIN = "-"  # the path of standard input
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+)$")  # of a line without blanks around it
HEREDOC = re.compile(r"\d*<<(-?)([^<]+)$")  # a word that begins a here-document


class Heredoc(NamedTuple):
    """A text that follows an instruction, up to a line that contains only `name`."""

    name: str
    content: str
    expand: bool  # its name was not in quotes


class Line(NamedTuple):
    """One instruction."""

    number: int  # of its first line in the file, from 1
    word: str  # in capitals
    rest: str  # what follows, continuations joined
    heredocs: tuple[Heredoc, ...]


class Source(NamedTuple):
    """A Dockerfile, cut into instructions."""

    lines: tuple[Line, ...]
    escape: str  # the escape character: a backslash, unless the file begins with `# escape=`


def read(path: str) -> Source:
    """Return the instructions of a file, or of standard input. Raises SpecError with FILE:LINE."""
    text = textfile.decoded(textfile.read(path, "Dockerfile", stdin=path == STDIN), path, "Dockerfile")
    if "\0" in text:
        raise SpecError(f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL character")
    return parse(text, path)


def parse(text: str, path: str) -> Source:
    """Return the instructions of a text of the file `path`. Raises SpecError with FILE:LINE."""
    physical = [line.removesuffix("\r") for line in text.split("\n")]
    escape = _escape(physical, path)
    return Source(tuple(_Reader(physical, path, escape).lines()), escape)


def comment_hint(text: str) -> str:
    """Return a hint for an instruction that is refused, if it seems to end with a comment, else ""."""
    return "# begins a comment only at the beginning of a line" if re.search(r"\s#", text) else ""


def words(text: str, escape: str = "\\") -> list[str]:
    """Return the words of a text. White space in quotes or behind `escape` belongs to a word; quotes stay."""
    found: list[str] = []
    word, quote, index = "", "", 0
    while index < len(text):
        letter = text[index]
        if letter == escape and quote != "'" and index + 1 < len(text):
            word += text[index : index + 2]
            index += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            if word:
                found.append(word)
            word = ""
            index += 1
            continue
        word += letter
        index += 1
    return [*found, word] if word else found


def _escape(physical: list[str], path: str) -> str:
    """Return the character that the directives at the top of a file name."""
    for number, line in enumerate(physical, 1):
        match = _DIRECTIVE.match(line.strip())
        if not match:
            break
        if match[1].lower() == "escape":
            if match[2] not in ("\\", "`"):
                raise SpecError(f"{path}:{number}: escape: expected \\ or `, got {match[2]}")
            return match[2]
    return "\\"


class _Reader:
    """The physical lines, taken one after the other."""

    def __init__(self, physical: list[str], path: str, escape: str) -> None:
        self._physical = physical
        self._path = path
        self._next = 0  # index of the line to be read
        mark = re.escape(escape)
        # twice the character is the character itself, at the end of a line too
        self._continued = re.compile(rf"(?:^|[^{mark}]){mark}[ \t]*$")
        self._escape = escape

    def lines(self) -> Iterator[Line]:
        while self._next < len(self._physical):
            number = self._next + 1
            text = self._logical()
            if text:
                word, *others = text.split(maxsplit=1)
                word, rest = word.upper(), "".join(others)
                heredocs = tuple(self._heredocs(number, rest)) if word in _WITH_HEREDOCS else ()
                yield Line(number, word, rest, heredocs)

    def _logical(self) -> str:
        """Return the next line with those that continue it; comments and empty lines between them are not there."""
        parts: list[str] = []
        continued = True
        while continued and self._next < len(self._physical):
            line = self._physical[self._next]
            self._next += 1
            bare = line.strip()
            if not bare or bare.startswith("#"):
                if not parts:
                    return ""
                continue
            continued = bool(self._continued.search(line))
            parts.append(line.rstrip(" \t")[:-1] if continued else line)
        return "".join(parts).strip()

    def _heredocs(self, number: int, rest: str) -> Iterator[Heredoc]:
        if rest.startswith("["):
            return
        for word in words(rest, self._escape):
            match = HEREDOC.match(word)
            if match:
                name = re.sub(r"[\"']", "", match[2])
                yield Heredoc(name, self._until(name, number, tabs=bool(match[1])), name == match[2])

    def _until(self, name: str, number: int, *, tabs: bool) -> str:
        content: list[str] = []
        while self._next < len(self._physical):
            line = self._physical[self._next]
            self._next += 1
            line = line.lstrip("\t") if tabs else line
            if line == name:
                return "".join(f"{text}\n" for text in content)
            content.append(line)
        raise SpecError(f"{self._path}:{number}: the text that ends with a line {name} never ends")
