"""Generated parts of docs/reference.md: `python -m vmctl.cli.reference FILE` makes them from parsers and schemas."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from images.recipes import recipe
from vmctl.cli import VERBS, sentence
from vmctl.cli.commands import Command, commands, flags, positionals
from vmctl.spec import workloadfile

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def updated(page: str) -> str:
    """Return the page with its generated parts updated. Raises KeyError for an unknown part."""
    parts = {"verbs": _overview, "commands": _commands, "workload": _workload, "recipe": _recipe}
    return _PART.sub(lambda match: f"{match[1]}\n{parts[match[2]]()}\n{match[3]}", page)


def _commands() -> str:
    return "\n".join(map(_command, commands())).rstrip("\n") + "\n"


def _workload() -> str:
    return _keys(workloadfile.schema())


def _recipe() -> str:
    return _keys(recipe.schema())


def _overview() -> str:
    return _table(("verb", "what it does"), ((f"[`{verb}`](#vmctl-{verb})", text) for verb, text in VERBS.items()))


def _command(command: Command) -> str:
    name = " ".join(("vmctl", *command.words))
    own = [action for action in positionals(command.parser) if not isinstance(action, argparse._SubParsersAction)]
    given = flags(command.parser)
    usage = " ".join((name, *["[FLAGS]"] * bool(given), *map(_positional, own), *["ACTION"] * bool(command.actions)))
    rows = [(f"`{_words(action)}`", _help(action)) for action in (*own, *given)]
    lines = [f"{'##' + '#' * len(command.words)} {name}\n", f"{sentence(command.text)}\n", f"    {usage}\n"]
    if rows:
        lines.append(_table(("argument", "meaning"), rows))
    if command.parser.example:
        lines.append(f"Example: `{command.parser.example}`\n")
    return "\n".join(lines)


def _positional(action: argparse.Action) -> str:
    name = _metavar(action)
    optional = action.nargs in ("?", "*", argparse.REMAINDER)
    several = " ..." if action.nargs in ("+", "*") else ""
    return f"[{name}{several}]" if optional else f"{name}{several}"


def _words(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {_metavar(action)}".strip()


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper().replace("OPTION_", "")


def _help(action: argparse.Action) -> str:
    text = (action.help or "").removesuffix(" (default: %(default)s)")  # added by BooleanOptionalAction before 3.13
    choices = f" ({', '.join(map(str, action.choices))})" if action.choices and action.metavar else ""
    return text.replace("%%", "%") + choices


def _keys(schema: dict[str, Any]) -> str:
    return _table(("key", "value", "default", "meaning"), _rows(schema, schema["$ref"], ""))


def _rows(schema: dict[str, Any], reference: str, above: str) -> Iterator[Sequence[str]]:
    """Yield a row for each key of a definition and of those that it refers to."""
    definition = schema["$defs"][reference.rpartition("/")[2]]
    for key, value in definition["properties"].items():
        path = f"{above}{key}"
        default = "required" if key in definition["required"] else _default(value.get("default"))
        yield f"`{path}`", _kind(value), default, value["description"]
        for inner, suffix in _references(value):
            yield from _rows(schema, inner, f"{path}{suffix}.")


def _references(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for one in value.get("anyOf", [value]):
        if "$ref" in one:
            yield one["$ref"], ""
        elif "items" in one:
            yield from ((reference, f"[]{below}") for reference, below in _references(one["items"]))


def _default(value: object) -> str:
    if value in (None, "", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(value: dict[str, Any]) -> str:
    """Return the values that a key can have, in words."""
    kinds = [kind for one in value.get("anyOf", [value]) if (kind := _one_kind(one))]
    if {"text", "number"} <= set(kinds):
        kinds = ["text or number"]
    return " or ".join(dict.fromkeys(kinds))


def _one_kind(value: dict[str, Any]) -> str:
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "$ref" in value:
        return "mapping"
    if value["type"] == "array":
        kinds = value["items"].get("anyOf", [value["items"]])
        words = dict.fromkeys("mappings" if "$ref" in kind else f"texts{_examples(kind)}" for kind in kinds)
        return f"list of {' or '.join(words)}"
    if value["type"] == "object":
        return "mapping of names to texts"
    names = {"string": "text", "integer": "number", "number": "number", "boolean": "`true`, `false`"}
    types = value["type"] if isinstance(value["type"], list) else [value["type"]]
    return " or ".join(names[one] for one in types if one in names) + _examples(value)


def _examples(value: dict[str, Any]) -> str:
    return f" such as {', '.join(f'`{one}`' for one in value['examples'])}" if "examples" in value else ""


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main(path: str) -> None:
    """Update the generated parts of a page."""
    with open(path, encoding="utf-8") as file:
        page = updated(file.read())
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)


if __name__ == "__main__":
    main(sys.argv[1])
