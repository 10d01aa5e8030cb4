"""Files of variables, one NAME=VALUE on each line: as docker-run(1) reads them, or with quotes, as Compose does."""

from __future__ import annotations

import os

from vmctl.errors import SpecError
from vmctl.light import re
from vmctl.named import TYPE_CHECKING
from vmctl.spec import rules, textfile

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = r"(?:export[ \t]+)?([^\s=#'\"]+)[ \t]*"
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read(path: str, *, raw: bool = False) -> dict[str, str]:
    """Return the variables of a file; a name without a value has the caller's, if there is one.

    `raw`: quotes are part of a value, and `#` begins a comment only at the beginning of a line. Otherwise a value can
    be in single quotes, in which nothing has a meaning, or in double quotes with escapes such as `\\n`, also over
    several lines; without quotes it ends before ` #`. Variables in values are not replaced. Raises SpecError.
    """
    try:
        content = textfile.content(path, textfile.MAX_BYTES)
    except OSError as error:
        raise SpecError(f"env_file: {path} cannot be read: {error.strerror}") from None
    if len(content) > textfile.MAX_BYTES:
        raise SpecError(f"env_file: {path} is larger than {textfile.MAX_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"env_file: {path} is not a text in UTF-8: {error.reason}") from None
    if "\0" in text:
        raise SpecError(f"env_file: {path} is not a text: it contains a NUL character")
    found = {}
    for number, name, value in _raw(text) if raw else _quoted(text, path):
        if not rules.is_variable(name):
            raise SpecError(f"{path}:{number}: {_short(name)} cannot be the name of a variable")
        if value is not None:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _short(name: str) -> str:
    """Return a name for an error; it may be a part of a secret that is not where it belongs."""
    return repr(name[:8] + "..." if len(name) > 8 else name)


def _raw(text: str) -> Iterator[tuple[int, str, str | None]]:
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r").lstrip()
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            yield number, name, value if equals else None


def _quoted(text: str, path: str) -> Iterator[tuple[int, str, str | None]]:
    text, place = text.replace("\r\n", "\n"), 0
    while place < len(text):
        number = text.count("\n", 0, place) + 1
        if blank := re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|$)").match(text, place):
            place = blank.end() if blank.end() > place else place + 1
            continue
        head = re.compile(r"[ \t]*" + _NAME + r"(=[ \t]*)?").match(text, place)
        if head is None:
            raise SpecError(f"{path}:{number}: expected NAME=VALUE")
        if head[2] is None:
            value, place = None, _line_end(text, head.end(), path, number)
        else:
            value, place = _value(text, head.end(), path, number)
        yield number, head[1], value


def _value(text: str, place: int, path: str, number: int) -> tuple[str, int]:
    """Return a value that begins at a place, and the place after its line."""
    quote = text[place : place + 1]
    if quote not in ("'", '"') or not quote:
        plain = re.compile(r"[^\n]*").match(text, place)
        assert plain is not None
        return re.split(r"(?:^|[ \t])#", plain[0], maxsplit=1)[0].strip(), plain.end() + 1
    pattern = r"'([^']*)'" if quote == "'" else r'"((?:[^"\\]|\\.)*)"'
    found = re.compile(pattern, re.DOTALL).match(text, place)
    if found is None:
        raise SpecError(f"{path}:{number}: the quote {quote} has no end")
    value = found[1]
    if quote == '"':
        value = re.sub(r"\\(.)", lambda one: _ESCAPES.get(one[1], one[1]), value, flags=re.DOTALL)
    return value, _line_end(text, found.end(), path, number)


def _line_end(text: str, place: int, path: str, number: int) -> int:
    rest = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|$)").match(text, place)
    if rest is None:
        raise SpecError(f"{path}:{number}: expected the end of the line after the value")
    return rest.end()
