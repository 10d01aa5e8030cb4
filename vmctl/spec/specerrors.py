"""Turn msgspec's error messages about a user's file into errors with the words of that file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import msgspec

from vmctl.errors import SpecError

_WORDS = {"array": "a list", "object": "a mapping", "str": "a text", "int": "a whole number", "float": "a number"}


def explained(message: str, struct: Any, hints: Mapping[str, str], missing: str) -> SpecError:
    """Return the error for msgspec's message: the path of the key, what was expected, the nearest known key.

    `struct` is the type of the whole file, `hints` has hints by key (path without indexes), and `missing` is the hint
    for a missing key.
    """
    text, _, path = message.partition(" - at `$")
    text, _, mapping = text.partition(" - at `key` in `$")  # the key itself is wrong, not its value
    path = (path or mapping).rstrip("`").lstrip(".").replace("[...]", "")
    if mapping:
        return SpecError(f"a key of {path or 'the file'}: {_in_words(text)}", hint="put it in quotes")
    if unknown := re.search(r"unknown field `(.*)`", text):
        return _unknown(unknown[1], path, struct)
    if absent := re.search(r"missing required field `(.*)`", text):
        return SpecError(f"the key {f'{path}.' if path else ''}{absent[1]} is missing", hint=missing)
    if text.startswith("Invalid enum value"):
        choices = [str(choice) for kind in _types_at(struct, path) for choice in _choices(kind)]
        return SpecError(f"the key {path}: expected {', '.join(choices)}; got {text.rpartition(' ')[2]}")
    return SpecError(f"the key {path or '(top)'}: {_in_words(text)}", hint=hints.get(re.sub(r"\[\d*\]", "", path), ""))


def _unknown(key: str, path: str, struct: Any) -> SpecError:
    known = [
        field.encode_name
        for kind in _types_at(struct, path)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        for field in msgspec.structs.fields(kind)
    ]
    near = get_close_matches(key, known, 1, 0.5)
    return SpecError(
        f"the key {f'{path}.{key}' if path else key} is unknown",
        hint=f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}",
    )


def _types_at(kind: Any, path: str) -> list[Any]:
    """Return the possible types at a key's path such as `resources` or `files[0].mode`."""
    kinds = list(_alternatives(kind))
    for part in filter(None, re.sub(r"\[\d*\]", "", path).split(".")):
        structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        fields = [field for struct in structs for field in msgspec.structs.fields(struct) if field.encode_name == part]
        kinds = [found for field in fields for found in _alternatives(field.type)]
    return kinds


def _alternatives(kind: Any) -> Iterator[Any]:
    """Yield the members of a union, and the types of a list's items."""
    if get_origin(kind) is Literal or not get_args(kind):
        yield kind
        return
    for argument in get_args(kind):
        yield from _alternatives(argument)


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _in_words(text: str) -> str:
    """Replace msgspec's names of types by those of YAML."""

    def words(match: re.Match[str]) -> str:
        names = [_WORDS.get(name, name) for name in match[1].split(" | ") if name != "null" or " | " not in match[1]]
        return " or ".join(names).replace("null", "nothing").replace("bool", "true or false")

    return re.sub(r"`([^`]*)`", words, text[0].lower() + text[1:])
