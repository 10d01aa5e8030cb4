"""Read YAML from users and from untrusted sources: size and depth are limited, also after aliases are expanded."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from vmctl.errors import SpecError
from vmctl.spec import textfile

MAX_NODES = 10_000  # after aliases are expanded
MAX_DEPTH = 50  # libyaml builds a document by recursion in C, and crashes the process at some depth


class _Loader(yaml.CSafeLoader):
    """The core schema of YAML 1.2: `no` is a string and 22:22 is not a number."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    """Build a mapping; refuse a key that is given twice, which YAML forbids and PyYAML accepts."""
    if not isinstance(node, yaml.MappingNode):  # the tag !!map at something else
        raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = getattr(key_node, "value", None)
        if isinstance(key, str) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} is given twice", key_node.start_mark)
        seen.add(key if isinstance(key, str) else id(key_node))
    return dict(loader.construct_mapping(node, deep=True))


def _integer(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text.lstrip("+-").startswith(("0o", "0x")) else int(text)


def _float(loader: Any, node: Any) -> float:
    number = float(loader.construct_scalar(node))
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _boolean(loader: Any, node: Any) -> bool:
    text = loader.construct_scalar(node).lower()
    if text not in ("true", "false"):
        raise ValueError(f"{text[:40]} is not true or false")
    return bool(text == "true")


# an explicit tag such as !!timestamp or !!set asks for any other constructor of PyYAML, which expects what matched it
_CORE = ("null", "str", "seq")
_Loader.yaml_constructors = {
    **{f"tag:yaml.org,2002:{tag}": yaml.CSafeLoader.yaml_constructors[f"tag:yaml.org,2002:{tag}"] for tag in _CORE},
    "tag:yaml.org,2002:map": _mapping,
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _float,
    "tag:yaml.org,2002:bool": _boolean,
    None: yaml.CSafeLoader.yaml_constructors[None],
}


def read_mapping(
    path: str, what: str = "workload file", example: str = "image: tiny", *, raw: bytes | None = None
) -> dict[str, Any]:
    """Return the mapping in a YAML file; `what` names the kind of file in errors, `raw` is its content if it is known.

    Raises SpecError.
    """
    raw = textfile.read(path, what) if raw is None else raw
    try:
        if _depth(raw) > MAX_DEPTH:
            raise SpecError(f"{path} is nested more than {MAX_DEPTH} levels deep, too deep for a {what}")
        document = yaml.load(raw, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not YAML: {_where(error)}") from None
    if _nodes(document, {}) > MAX_NODES:
        raise SpecError(
            f"{path} expands to more than {MAX_NODES} values", hint="aliases (*name) repeat the values they name"
        )
    if not isinstance(document, dict):
        raise SpecError(
            f"{path} does not contain a mapping", hint=f"a {what} consists of `key: value` lines, such as {example}"
        )
    return document


def value(text: str) -> Any:
    """Return the value of a YAML text of one line. Raises SpecError."""
    try:
        if len(text) > textfile.MAX_BYTES or _depth(text.encode()) > MAX_DEPTH:
            raise ValueError("too large for one value")
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{text} is not YAML: {_where(error)}") from None


def check(text: str, where: str, what: str) -> None:
    """Check that a text is a mapping in YAML, or empty; of any version and with any tag, because nothing is built.

    `where` and `what` name the text in errors. Raises SpecError.
    """
    try:
        if _depth(text.encode()) > MAX_DEPTH:
            raise SpecError(f"{where} is nested more than {MAX_DEPTH} levels deep, too deep for a {what}")
        root = yaml.compose(text, yaml.CSafeLoader)
        _refuse_twice(root)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{where} is not YAML: {_where(error)}") from None
    if root is not None and not isinstance(root, yaml.MappingNode) and root.value:
        raise SpecError(f"{where} does not contain a mapping", hint=f"a {what} consists of `key: value` lines")


def compose(raw: bytes, where: str, what: str) -> yaml.Node | None:
    """Return the nodes of a YAML text, of which nothing is built; aliases are not expanded. Raises SpecError."""
    try:
        if _depth(raw) > MAX_DEPTH:
            raise SpecError(f"{where} is nested more than {MAX_DEPTH} levels deep, too deep for a {what}")
        return yaml.compose(raw, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SpecError(f"{where} is not YAML: {_where(error)}") from None


def _refuse_twice(root: yaml.Node | None) -> None:
    """Raise ConstructorError for a key that a mapping has twice: YAML forbids it, and all but one would be lost."""
    nodes, known = [root], set()
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in known:
            continue
        known.add(id(node))  # an alias may lead back to it
        seen = set()
        for part in node.value:
            nodes += part if isinstance(part, tuple) else [part]
            key = part[0] if isinstance(part, tuple) else None
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} is given twice", key.start_mark
                    )
                seen.add((key.tag, key.value))


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _depth(raw: bytes) -> int:
    """Return how deep a document's lists and mappings are nested; counting stops beyond MAX_DEPTH."""
    depth = deepest = 0
    try:
        for event in yaml.parse(raw, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in (error.problem or ""):  # libyaml has its own limit of 1000 levels since 0.2.6
            return MAX_DEPTH + 1
        raise
    return deepest


def _nodes(value: Any, known: dict[int, int]) -> int:
    """Return how many values a document has if each alias is expanded, without expanding any."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_NODES + 1  # an alias to itself would be endless
        parts = [*value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_nodes(part, known) for part in parts)
    return known[id(value)]
