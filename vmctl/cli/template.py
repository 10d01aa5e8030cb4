"""Templates as in Go's text/template, for `--format '{{.Name}}'`: the part of it that command lines use.

Fields and paths (`.Name`, `.State.Status`), `range`, `if`, `with`, `else`, `end`, variables of `range`, and FUNCTIONS.
A field has the name that the JSON has, or that name in Go's form: `exit_code` is `.ExitCode` too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vmctl.errors import SpecError

Lookup = Callable[[str, Any], str]  # the name of a field and its value -> the text that people read

# fields of docker -> ours, where the name in Go's form is not enough
ALIASES = {
    "Names": "name",
    "ID": "name",
    "Id": "name",
    "Container": "name",
    "CreatedAt": "created",
    "CreatedSince": "created",
    "RunningFor": "created",
    "Repository": "name",
    "CPUPerc": "cpu_percent",
    "MemPerc": "memory_percent",
    "MemUsage": "memory_bytes",
    "PIDs": "pids",
}
_UNITS = ("", "_bytes", "_s")
_ACTION = re.compile(r"(\s*)\{\{(-?)(.*?)(-?)\}\}(\s*)", re.DOTALL)
_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|-?\d+|\$?[A-Za-z_.$][\w.$]*|\||:=|,)')
_ESCAPES = {r"\t": "\t", r"\n": "\n"}


class Shown(NamedTuple):
    """A value, and the text of it that people read."""

    raw: Any
    text: str


class _Node(NamedTuple):
    kind: str  # text | show | range | if | with
    words: tuple[str, ...]
    body: tuple[Any, ...] = ()
    otherwise: tuple[Any, ...] = ()


def parse(text: str) -> Template:
    """Return the template of a text. Raises SpecError for what this program does not understand."""
    table = text.startswith("table ")
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    pieces = _pieces(text[6:] if table else text)
    nodes = _nodes(pieces, "")[0]
    return Template(nodes, table=table)


class Template:
    """A template that was read; `table`: it begins with the word table, so it has a line of titles."""

    def __init__(self, nodes: Sequence[_Node], *, table: bool) -> None:
        self.nodes, self.table = nodes, table

    def title(self) -> str:
        """Return the line of titles: each field as its name."""
        return "".join(node.words[0] if node.kind == "text" else _title(node.words) for node in self.nodes)

    def render(self, row: Mapping[str, Any], cell: Lookup) -> str:
        """Return the text for one row. Raises SpecError for a field that it does not have."""
        return _rendered(self.nodes, row, {"$": row}, cell)


def _title(words: Sequence[str]) -> str:
    name = next((word.rpartition(".")[2] for word in words if word.startswith(".")), "")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).upper()


def _pieces(text: str) -> list[tuple[str, str]]:
    """Return texts and actions in their order. A dash next to the braces removes the blanks on its side."""
    found, end = [], 0
    for match in _ACTION.finditer(text):
        before, left, action, right, after = match.groups()
        found.append(("text", text[end : match.start()] + ("" if left else before)))
        found.append(("action", action.strip()))
        end = match.end() if right else match.end() - len(after)
    rest = text[end:]
    if "{{" in rest:
        raise SpecError("--format: an action has no end", hint="'{{.Name}}', or table, json or jsonl")
    return [*found, ("text", rest)]


def _nodes(pieces: list[tuple[str, str]], opened: str) -> tuple[tuple[_Node, ...], str]:
    """Take the nodes up to `else` or `end` of the block `opened`; return them, and the word that has ended it."""
    found: list[_Node] = []
    while pieces:
        kind, text = pieces.pop(0)
        if kind == "text":
            found += [_Node("text", (text,))] if text else []
            continue
        words = _words(text)
        if words[0] in ("end", "else") and opened:
            return tuple(found), " ".join(words)
        if words[0] in ("range", "if", "with"):
            found.append(_block(words, pieces))
        else:
            _check(words)
            found.append(_Node("show", words))
    if opened:
        raise SpecError(f"--format: {opened} has no end", hint=f"{{{{{opened} .X}}}} ... {{{{end}}}}")
    return tuple(found), ""


def _block(words: tuple[str, ...], pieces: list[tuple[str, str]]) -> _Node:
    _check(words[1:])
    body, closed = _nodes(pieces, words[0])
    otherwise: tuple[_Node, ...] = ()
    if closed.startswith("else "):
        otherwise = (_block(_words(closed.removeprefix("else ")), pieces),)
    elif closed == "else":
        otherwise, _ = _nodes(pieces, words[0])
    return _Node(words[0], words[1:], body, otherwise)


def _words(text: str) -> tuple[str, ...]:
    found, end = [], 0
    while match := _WORD.match(text, end):
        found.append(match[1])
        end = match.end()
    if text[end:].strip() or not found:
        raise SpecError(f"--format: {{{{{text}}}}} is not understood", hint=f"a field, or {', '.join(FUNCTIONS)}")
    return tuple(found)


def _check(words: Sequence[str]) -> None:
    for part in _split(words, "|"):
        named = part and part[0][0] not in '."`$' and not part[0].lstrip("-").isdigit()
        if not part or (named and part[0] not in FUNCTIONS):
            raise SpecError(
                f"--format: there is no function {part[0] if part else '|'}", hint=f"{', '.join(FUNCTIONS)}"
            )


def _split(words: Sequence[str], mark: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == mark:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _rendered(nodes: Sequence[_Node], dot: Any, names: dict[str, Any], cell: Lookup) -> str:
    found = []
    for node in nodes:
        if node.kind == "text":
            found.append(node.words[0])
        elif node.kind == "show":
            found.append(_text(_value(node.words, dot, names, cell)))
        elif node.kind == "range":
            found.append(_ranged(node, dot, names, cell))
        else:
            value = _raw(_value(node.words, dot, names, cell))
            inner = value if value and node.kind == "with" else dot
            found.append(_rendered(node.body if value else node.otherwise, inner, names, cell))
    return "".join(found)


def _ranged(node: _Node, dot: Any, names: dict[str, Any], cell: Lookup) -> str:
    variables, words = [], node.words
    if ":=" in words:
        variables = [word for word in words[: words.index(":=")] if word != ","]
        words = words[words.index(":=") + 1 :]
    value = _raw(_value(words, dot, names, cell))
    if value is not None and not isinstance(value, (list, tuple, dict)):
        raise SpecError(f"--format: range {' '.join(words)} is not a list", hint="{{json .}} shows all fields")
    items = list(value.items() if isinstance(value, dict) else enumerate(value or ()))
    if not items:
        return _rendered(node.otherwise, dot, names, cell)
    parts = []
    for key, item in items:
        given = dict(zip(variables, (key, item) if len(variables) > 1 else (item,), strict=False))
        parts.append(_rendered(node.body, item, {**names, **given}, cell))
    return "".join(parts)


def _value(words: Sequence[str], dot: Any, names: dict[str, Any], cell: Lookup) -> Any:
    """Return the value of a pipeline: what is before a bar is the last argument of what is behind it."""
    last: list[Any] = []
    for part in _split(words, "|"):
        if not part:
            raise SpecError("--format: nothing is before a bar, or behind it", hint="{{.Name | upper}}")
        if part[0] in FUNCTIONS:
            arguments = [_operand(word, dot, names, cell) for word in part[1:]] + last
            last = [_called(part[0], arguments)]
        else:
            last = [_operand(part[0], dot, names, cell)]
    return last[0]


def _called(name: str, arguments: list[Any]) -> Any:
    if name not in ("print", "println", "printf"):
        arguments = [_raw(one) for one in arguments]
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, ValueError, LookupError, AttributeError):
        raise SpecError(f"--format: {name} does not fit these values", hint="{{json .}} shows all fields") from None


def _operand(word: str, dot: Any, names: dict[str, Any], cell: Lookup) -> Any:
    if word[0] == "`":
        return word[1:-1]
    if word[0] == '"' or word.lstrip("-").isdigit():
        return _literal(word)
    start, _, path = word.partition(".")
    if start and start not in names:
        raise SpecError(f"--format: there is no variable {start}", hint="{{json .}} shows all fields")
    value: Any = names[start] if start else dot
    for name in filter(None, path.split(".")):
        value = _field(_raw(value), name, cell)
    return value


def _literal(word: str) -> str | int:
    try:
        return str(json.loads(word, strict=False)) if word[0] == '"' else int(word)
    except ValueError:  # an escape that there is not, more digits than int() takes
        raise SpecError(
            f"--format: {word[:40]} is not understood", hint='texts such as "\\t", numbers such as 5'
        ) from None


def _field(value: Any, name: str, cell: Lookup) -> Any:
    if not isinstance(value, Mapping):
        raise SpecError(f"--format: there is no field .{name} in {json.dumps(value)[:60]}", hint="{{json .}}")
    if name in value:
        return value[name] if name.islower() else _shown(name, name, value, cell)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    for key in (ALIASES.get(name, ""), *(f"{snake}{unit}" for unit in _UNITS)):
        if key in value:
            return _shown(name, key, value, cell)
    raise SpecError(f"--format: there is no field .{name}", hint=f"the fields are {', '.join(value)}")


def _shown(name: str, key: str, value: Mapping[str, Any], cell: Lookup) -> Any:
    """Return a field that is called by its name in Go's form: its text is that of tables."""
    raw = value[key]
    if raw is None or isinstance(raw, (bool, dict)) or raw == [] or name in value:
        return raw
    return Shown(raw, cell(key, raw))


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, Shown) else value


def _text(value: Any) -> str:
    if isinstance(value, Shown):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_text(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)


def _printf(form: str, *values: Any) -> str:
    if re.search(r"%[^%a-z]*\d{4}", form):
        raise ValueError("a width that no line has")
    return re.sub(r"%[vd]", "%s", form) % tuple(map(_text, values))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value),
    "join": lambda values, between: between.join(map(_text, values)),
    "split": lambda text, between: text.split(between),
    "upper": lambda text: _text(text).upper(),
    "lower": lambda text: _text(text).lower(),
    "len": lambda value: len(value or ()),
    "index": _index,
    "truncate": lambda text, length: _text(text)[:length],
    "slice": lambda value, *ends: value[slice(*ends)] if len(ends) > 1 else value[slice(ends[0], None)],
    "print": lambda *values: "".join(map(_text, values)),
    "println": lambda *values: " ".join(map(_text, values)) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, other: first != other,
    "not": lambda value: not value,
    "and": lambda *values: next((one for one in values if not one), values[-1]),
    "or": lambda *values: next((one for one in values if one), values[-1]),
}
