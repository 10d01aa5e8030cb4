"""Files of variables, one NAME=VALUE on each line: as docker-run(1) reads them, or with quotes, as Compose does."""

from __future__ import annotations

import os

from vmctl.errors import SpecError
from vmctl.light import pattern
from vmctl.named import TYPE_CHECKING
from vmctl.spec import rules, textfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Entry = tuple[int, str, str | None]  # number of the line, name, value

_WHAT = "file of variables"
_KEY = pattern(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(=|:(?=[ \t])|(?=#|\r?\n|\Z))[ \t]*")
_BLANK = pattern(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)")
_END = pattern(r"[ \t]*(?:[ \t]#[^\n]*)?(?:\r?\n|\Z)")
_COMMENT = pattern(r"(?:^|[ \t])#")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def read(path: str, *, raw: bool = False) -> dict[str, str]:
    """Return the variables of a file; a name without a value has the caller's, if there is one.

    `raw`: see `_raw`, otherwise `quoted`. Variables in values are not replaced. Raises SpecError with file and line.
    """
    found = {}
    for number, name, value in _raw(content(path)) if raw else quoted(content(path), path):
        if not rules.is_variable(name):
            raise SpecError(f"{path}:{number}: {_short(name)} cannot be the name of a variable")
        if value is not None:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def content(path: str) -> str:
    """Return the text of a file of variables. Raises SpecError."""
    text = textfile.decoded(textfile.read(path, _WHAT), path, _WHAT)
    if (at := text.find("\0")) >= 0:
        raise SpecError(f"{path}:{text.count(chr(10), 0, at) + 1}: not a text: it contains a NUL character")
    return text


def quoted(text: str, path: str, expand: Callable[[str], str] | None = None) -> Iterator[Entry]:
    """Yield the line's number, the name and the value of each entry, in the form of Compose; None: it has no value.

    A value can be in single quotes, in which nothing has a meaning, or in double quotes with escapes such as `\\n`,
    also over several lines; without quotes it ends before ` #`. `expand` replaces the variables of a value that is not
    in single quotes, and may raise ValueError. Raises SpecError, whose text has nothing of a value: it may be a secret.
    """
    at, number = 0, 1
    while at < len(text):
        begin = at
        if not (blank := _BLANK.match(text, at)):
            try:
                name, value, at = _entry(text, at, expand)
            except ValueError as error:
                raise SpecError(f"{path}:{number}: {error}") from None
            yield number, name, value
        else:
            at = blank.end()
        number += text.count("\n", begin, at)


def _short(name: str) -> str:
    """Return a name for an error; it may be a part of a secret that is not where it belongs."""
    return repr(name[:8] + "..." if len(name) > 8 else name)


def _raw(text: str) -> Iterator[Entry]:
    """Yield the same with quotes as a part of the value, and comments only at the beginning of a line."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r").lstrip()
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            yield number, name, value if equals else None


def _entry(text: str, at: int, expand: Callable[[str], str] | None) -> tuple[str, str | None, int]:
    """Return name and value of the line at a position, and the position after it. Raises ValueError."""
    key = _KEY.match(text, at)
    if not key:
        raise ValueError("expected NAME=VALUE")
    name, at = key[1], key.end()
    if not key[2]:
        return name, None, _line_end(text, at, name)
    quote = text[at : at + 1]
    if quote == "'":
        end = text.find("'", at + 1)
        if end < 0:
            raise ValueError(f"the value of {_short(name)} has no closing '")
        return name, text[at + 1 : end], _line_end(text, end + 1, name)
    if quote == '"':
        value, at = _double_quoted(text, at + 1, name, {**_ESCAPES, "$": "$$" if expand else "$"})
        return name, expand(value) if expand else value, _line_end(text, at, name)
    end = text.find("\n", at)
    value = text[at : end if end >= 0 else len(text)].rstrip("\r")
    if comment := _COMMENT.search(value):
        value = value[: comment.start()]
    value = value.strip()
    return name, expand(value) if expand else value, end + 1 if end >= 0 else len(text)


def _double_quoted(text: str, at: int, name: str, escapes: dict[str, str]) -> tuple[str, int]:
    """Return the text up to the closing quote, with its escapes, and the position after the quote."""
    found = []
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and at + 1 < len(text):
            found.append(escapes.get(text[at + 1], text[at : at + 2]))
            at += 2
            continue
        found.append(text[at])
        at += 1
    if at >= len(text):
        raise ValueError(f'the value of {_short(name)} has no closing "')
    return "".join(found), at + 1


def _line_end(text: str, at: int, name: str) -> int:
    end = _END.match(text, at)
    if not end:
        raise ValueError(f"expected the end of the line after the value of {_short(name)}")
    return end.end()
