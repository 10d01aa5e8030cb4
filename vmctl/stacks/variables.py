"""Variables in the values of a stack file: the forms of Compose, which are those of sh(1) with a colon or without.

`$A`, `${A}`, `${A:-default}`, `${A-default}`, `${A:?error}`, `${A?error}`, `${A:+other}`, `${A+other}`, nested ones in
the words after the operator, and `$$` for a dollar sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from vmctl.stacks.item import Item, Place

MAX_DEPTH = 20  # of a default in a default
MAX_TEXT = 1 << 20  # characters of one value
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")

Unset = Callable[[str], None]


class FormError(ValueError):
    """A dollar sign that begins no variable."""


def filled(item: Item, values: Mapping[str, str], unset: Callable[[Place, str], None]) -> Item:
    """Return an item with the values of its variables; keys stay as they are.

    `unset` is called for each variable without a value and without a default, which becomes an empty text. Raises
    SpecError.
    """
    return _filled(Place(item), values, unset)


def _filled(place: Place, values: Mapping[str, str], unset: Callable[[Place, str], None]) -> Item:
    item = place.item
    if place.is_map():
        parts = {key: _filled(part, values, unset) for key, part in place.entries().items()}
        return item.like(parts, tag=item.tag)
    if isinstance(item.value, list):
        return item.like([_filled(part, values, unset) for part in place.each()], tag=item.tag)
    if item.value is None or "$" not in item.value:
        return item
    try:
        text = expand(item.value, values, lambda name: unset(place, name))
    except FormError as error:
        raise place.error(str(error), "$$ is a dollar sign") from None
    except ValueError as error:
        raise place.error(str(error)) from None
    return item.like(text, tag=item.tag)


def expand(text: str, values: Mapping[str, str], unset: Unset, depth: int = 0) -> str:
    """Return a text with the values of its variables. Raises ValueError."""
    if depth > MAX_DEPTH:
        raise ValueError(f"defaults are nested more than {MAX_DEPTH} levels deep")
    found, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        found.append(text[at:dollar])
        part, at = _variable(text, dollar, values, unset, depth)
        found.append(part)
    found.append(text[at:])
    if sum(map(len, found)) > MAX_TEXT:
        raise ValueError("a text becomes too long with its variables")
    return "".join(found)


def _variable(text: str, dollar: int, values: Mapping[str, str], unset: Unset, depth: int) -> tuple[str, int]:
    """Return the value of the variable that begins at `dollar`, and the position after it."""
    rest = text[dollar + 1 : dollar + 2]
    if rest == "$":
        return "$", dollar + 2
    if rest != "{":
        name = _NAME.match(text, dollar + 1)
        if not name:
            raise FormError(f"{text[dollar : dollar + 20]!r} has not the form $NAME or ${{NAME}}")
        return _plain(name[0], values, unset), name.end()
    end = _closing(text, dollar + 2)
    name = _NAME.match(text, dollar + 2, end)
    operator = next((one for one in _OPERATORS if name and text.startswith(one, name.end(), end)), "")
    if not name or (not operator and name.end() != end):
        raise FormError(f"{text[dollar : end + 1][:40]!r} has not the form ${{NAME}} or ${{NAME:-default}}")
    if not operator:
        return _plain(name[0], values, unset), end + 1
    word = text[name.end() + len(operator) : end]
    return _chosen(name[0], operator, word, values, unset, depth), end + 1


def _plain(name: str, values: Mapping[str, str], unset: Unset) -> str:
    if name not in values:
        unset(name)
    return values.get(name, "")


def _closing(text: str, at: int) -> int:
    """Return the position of the brace that closes the one before `at`."""
    depth = 1
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
            continue
        if text.startswith("${", at):
            depth += 1
            at += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    raise FormError("`${` has no closing brace")


def _chosen(name: str, operator: str, word: str, values: Mapping[str, str], unset: Unset, depth: int) -> str:
    """Return what a form with an operator becomes; only the word that is used is expanded."""
    there = bool(values.get(name)) if operator.startswith(":") else name in values
    kind = operator[-1]
    if kind == "+":
        return expand(word, values, unset, depth + 1) if there else ""
    if there:
        return values[name]
    if kind == "-":
        return expand(word, values, unset, depth + 1)
    message = expand(word, values, unset, depth + 1)
    state = "empty or not set" if operator.startswith(":") else "not set"
    raise ValueError(f"the variable {name} is {state}" + (f": {message}" if message else ""))
