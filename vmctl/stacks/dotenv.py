"""Files of variables in the form of Compose: `.env` and `env_file`, with quotes, comments and variables in values."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Mapping

from vmctl.errors import SpecError
from vmctl.spec import textfile
from vmctl.stacks import variables

_WHAT = "file of variables"
_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(=|:(?=[ \t])|(?=#|\r?\n|\Z))[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)")
_END = re.compile(r"[ \t]*(?:[ \t]#[^\n]*)?(?:\r?\n|\Z)")
_COMMENT = re.compile(r"(?:^|[ \t])#")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def load(path: str, values: Mapping[str, str], unset: Callable[[str], None] = lambda _: None) -> dict[str, str]:
    """Return the variables of a file; `values` are those that they can use, and that names without a value take.

    `unset` is called for each variable in a value that is not known. Raises SpecError with file and line.
    """
    text = textfile.decoded(textfile.read(path, _WHAT), path, _WHAT)
    return parse(text, path, values, unset)


def parse(
    text: str, path: str, values: Mapping[str, str], unset: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """Return the variables of a text. Raises SpecError."""
    found: dict[str, str] = {}
    known = ChainMap(dict(values), found)  # the first one wins: the environment
    at = 0
    while at < len(text):
        if (blank := _BLANK.match(text, at)) and blank.end() > at:
            at = blank.end()
            continue
        begin = at
        try:
            name, value, at = _entry(text, at, known, unset)
        except ValueError as error:
            raise SpecError(f"{path}:{text.count(chr(10), 0, begin) + 1}: {error}") from None
        if value is not None:
            found[name] = value
        elif name in values:
            found[name] = values[name]
    return found


def _entry(text: str, at: int, values: Mapping[str, str], unset: Callable[[str], None]) -> tuple[str, str | None, int]:
    """Return name and value of the line at a position, and the position after it; None: the name has no value."""
    key = _KEY.match(text, at)
    if not key:
        line = text[at:].partition("\n")[0]
        raise ValueError(f"expected NAME=VALUE, got {line[:40]!r}")
    at = key.end()
    if not key[2]:
        return key[1], None, _line_end(text, at)
    quote = text[at : at + 1]
    if quote == "'":
        end = text.find("'", at + 1)
        if end < 0:
            raise ValueError(f"the value of {key[1]} has no closing '")
        return key[1], text[at + 1 : end], _line_end(text, end + 1)
    if quote == '"':
        value, at = _double_quoted(text, at + 1, key[1])
        return key[1], variables.expand(value, values, unset), _line_end(text, at)
    end = text.find("\n", at) if "\n" in text[at:] else len(text)
    value = text[at:end].rstrip("\r")
    if comment := _COMMENT.search(value):
        value = value[: comment.start()]
    return key[1], variables.expand(value.strip(), values, unset), min(len(text), end + 1)


def _double_quoted(text: str, at: int, name: str) -> tuple[str, int]:
    """Return the text up to the closing quote, with its escapes, and the position after the quote."""
    found = []
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and at + 1 < len(text):
            found.append(_ESCAPES.get(text[at + 1], text[at : at + 2]))
            at += 2
            continue
        found.append(text[at])
        at += 1
    if at >= len(text):
        raise ValueError(f'the value of {name} has no closing "')
    return "".join(found), at + 1


def _line_end(text: str, at: int) -> int:
    end = _END.match(text, at)
    if not end:
        rest = text[at:].partition("\n")[0]
        raise ValueError(f"unexpected text after the value: {rest[:40]!r}")
    return end.end()
