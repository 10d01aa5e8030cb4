"""A value of a stack file with its place, and a cursor that adds the path of keys: errors name file, line and key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from vmctl.errors import SpecError

_TRUE, _FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")
_NULL = ("", "~", "null", "Null", "NULL")
_INT, _FLOAT = re.compile(r"[-+]?[0-9]{1,20}"), re.compile(r"[-+]?(\.[0-9]+|[0-9]{1,20}\.[0-9]*)([eE][-+]?[0-9]{1,3})?")
RESET, OVERRIDE = "!reset", "!override"


class Origin(NamedTuple):
    """The file of an item, as errors call it, and the folder from which its relative paths begin."""

    file: str
    folder: str


class Item:
    """A text, None, a list or a mapping; `quoted`: the text can be no number; `tag`: !reset, !override or ""."""

    __slots__ = ("line", "origin", "quoted", "tag", "value")

    def __init__(self, value: Any, origin: Origin, line: int, *, quoted: bool = False, tag: str = "") -> None:
        self.value, self.origin, self.line, self.quoted, self.tag = value, origin, line, quoted, tag

    def like(self, value: Any, *, tag: str = "") -> Item:
        """Return an item with another value and the same place."""
        return Item(value, self.origin, self.line, quoted=self.quoted, tag=tag)

    def plain(self) -> Any:
        """Return the value without places, for the checks of a workload file: numbers and booleans by YAML 1.2."""
        if isinstance(self.value, dict):
            return {key: part.plain() for key, part in self.value.items()}
        if isinstance(self.value, list):
            return [part.plain() for part in self.value]
        if self.value is None or self.quoted:
            return self.value
        text: str = self.value
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text


def scalar(text: str, origin: Origin, line: int, *, quoted: bool, tag: str = "") -> Item:
    """Return the item of a scalar: None for the ways to write null."""
    return Item(None if not quoted and text in _NULL else text, origin, line, quoted=quoted, tag=tag)


def named(path: Iterable[str]) -> str:
    """Return how errors call a path of keys: `service web: ports[0]`."""
    parts = list(path)
    what = {"services": "service", "networks": "network", "volumes": "volume", "secrets": "secret", "configs": "config"}
    head = ""
    if len(parts) > 1 and parts[0] in what:
        head, parts = f"{what[parts[0]]} {parts[1]}", parts[2:]
    text = ""
    for part in parts:
        text += part if part.startswith("[") else f".{part}" if text else part
    return ": ".join(filter(None, (head, text)))


class Place:
    """An item and the path of keys that leads to it."""

    def __init__(self, item: Item, path: tuple[str, ...] = ()) -> None:
        self.item, self.path = item, path

    @property
    def value(self) -> Any:
        """The value of the item."""
        return self.item.value

    @property
    def key(self) -> str:
        """The last key of the path."""
        return self.path[-1] if self.path else ""

    def error(self, text: str, hint: str = "") -> SpecError:
        """Return the error about this place."""
        where = f"{self.item.origin.file}:{self.item.line}"
        return SpecError(": ".join(filter(None, (where, named(self.path), text))), hint=hint)

    def warning(self, text: str) -> str:
        """Return the warning about this place."""
        return str(self.error(text))

    def get(self, key: str) -> Place | None:
        """Return the place of a key of a mapping; None if it is not there, or null."""
        found = self.entries().get(key)
        return found if found is not None and found.value is not None else None

    def entries(self) -> dict[str, Place]:
        """Return the places of a mapping by key; a null is an empty mapping. Raises SpecError."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.error(f"expected a mapping, got {self.kind()}")
        return {key: Place(item, (*self.path, key)) for key, item in self.value.items()}

    def below(self, part: str) -> Place:
        """Return the place of a key or of `[index]`; if it is not there, this one with a longer path."""
        if isinstance(self.value, dict) and part in self.value:
            return Place(self.value[part], (*self.path, part))
        if isinstance(self.value, list) and part[:1] == "[" and int(part[1:-1]) < len(self.value):
            return Place(self.value[int(part[1:-1])], (*self.path, part))
        return Place(self.item, (*self.path, part))

    def each(self) -> list[Place]:
        """Return the places of a list; a null is an empty list. Raises SpecError."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.error(f"expected a list, got {self.kind()}")
        return [Place(item, (*self.path, f"[{i}]")) for i, item in enumerate(self.value)]

    def one_or_each(self) -> list[Place]:
        """Return the places of a list, or this place if it is one text."""
        return [self] if self.is_text() else self.each()

    def is_text(self) -> bool:
        """Return whether it is a text, a number or a boolean."""
        return isinstance(self.value, str)

    def is_map(self) -> bool:
        """Return whether it is a mapping."""
        return isinstance(self.value, dict)

    def kind(self) -> str:
        """Return the kind of value in words."""
        if self.value is None:
            return "nothing"
        return f"{self.value[:40]!r}" if self.is_text() else "a mapping" if self.is_map() else "a list"

    def text(self) -> str:
        """Return the text; numbers and booleans as they are written. Raises SpecError."""
        if not isinstance(self.value, str):
            raise self.error(f"expected a text, got {self.kind()}")
        return self.value

    def texts(self) -> list[str]:
        """Return the texts of a list. Raises SpecError."""
        return [place.text() for place in self.each()]

    def flag(self) -> bool:
        """Return true or false. Raises SpecError."""
        text = self.text().lower()
        if text not in (*_TRUE, *_FALSE):
            raise self.error(f"expected true or false, got {self.kind()}")
        return text in _TRUE

    def whole(self, least: int = 0, most: int = 1 << 31) -> int:
        """Return a whole number within bounds. Raises SpecError."""
        text = self.text()
        if not _INT.fullmatch(text) or not least <= int(text) <= most:
            raise self.error(f"expected a whole number from {least} to {most}, got {self.kind()}")
        return int(text)

    def octal(self) -> int:
        """Return the permission bits of a mode, which is octal with and without quotes. Raises SpecError."""
        if not re.fullmatch(r"(0o?)?[0-7]{1,4}", self.text()):
            raise self.error(f"expected an octal mode such as 0440, got {self.kind()}")
        return int(self.text().removeprefix("0o"), 8)

    def path_of_host(self) -> str:
        """Return the absolute path of a path of the host, which is relative to the folder of the stack's file."""
        text = os.path.expanduser(self.text())
        if text.startswith("~"):
            raise self.error(f"there is no user {text[1:].partition('/')[0]}")
        return os.path.normpath(os.path.join(self.item.origin.folder, text))

    def pairs(self) -> dict[str, Place]:
        """Return the places of a mapping, or of a list of NAME=VALUE, or of NAME, whose value is null."""
        if not isinstance(self.value, list):
            return self.entries()
        found = {}
        for place in self.each():
            name, equals, text = place.text().partition("=")
            item = Item(text if equals else None, place.item.origin, place.item.line, quoted=True)
            found[name] = Place(item, (*self.path, name))
        return found

    def walk(self) -> Iterator[Place]:
        """Yield this place and all places below."""
        yield self
        if isinstance(self.value, dict | list):
            for place in self.entries().values() if self.is_map() else self.each():
                yield from place.walk()


def near(name: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    found = get_close_matches(name, known, 1, 0.5)
    if found:
        return f"did you mean {found[0]}?"
    return f"known here: {', '.join(known)}" if known else ""
