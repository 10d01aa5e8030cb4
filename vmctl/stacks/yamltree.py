"""Parse YAML into items: with anchors, merge keys, and the tags of Compose, all values as texts with their line.

Scalars stay as they are written, because their meaning depends on the key: 0440 is octal in `mode`, 22:22 is a port,
and 5432 in `environment` is a text. So neither YAML 1.1 nor 1.2 changes them.
"""

from __future__ import annotations

from typing import Any

import yaml

from vmctl.errors import SpecError
from vmctl.spec import yamlfile
from vmctl.stacks.item import OVERRIDE, RESET, Item, Origin, scalar

_WHAT = "stack file"
_CORE = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "str", "int", "float", "bool", "seq", "map"))
_OURS = (RESET, OVERRIDE)


def parse(raw: bytes, origin: Origin) -> Item:
    """Return the mapping of a stack file. Raises SpecError."""
    root = yamlfile.compose(raw, origin.file, _WHAT)
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(f"{origin.file} does not contain a mapping", hint="a stack file begins with `services:`")
    return _Builder(origin).item(root)


def is_stack(raw: bytes) -> bool:
    """Return whether a file is a stack and not a workload; False if it is not YAML."""
    try:
        root = yamlfile.compose(raw, "", _WHAT)
    except SpecError:
        return False
    keys = [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    return "services" in keys or ("include" in keys and "image" not in keys)


class _Builder:
    """Builds the items of one file; nodes that aliases share become items that are shared."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.known: dict[int, Item | None] = {}  # None: it is being built, so an alias leads back to it
        self.merged = 0  # keys that were copied by merges
        self.sizes: dict[int, int] = {}  # how many values an item has if each alias is expanded

    def item(self, node: Any) -> Item:
        if id(node) in self.known:
            known = self.known[id(node)]
            if known is None:
                raise self._wrong(node, "an alias to a value that contains it")
            return known
        self.known[id(node)] = None
        tag = self._tag(node)
        if isinstance(node, yaml.ScalarNode):
            made = scalar(node.value, self.origin, self._line(node), quoted=bool(node.style), tag=tag)
        else:
            value = self._mapping(node) if isinstance(node, yaml.MappingNode) else list(map(self.item, node.value))
            made = Item(value, self.origin, self._line(node), tag=tag)
        self._count(made, node)
        self.known[id(node)] = made
        return made

    def _mapping(self, node: Any) -> dict[str, Item]:
        merged: dict[str, Item] = {}
        own: dict[str, Item] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._wrong(key_node, "a key has to be a text")
            key = key_node.value
            if key == "<<" and not key_node.style:
                for name, item in self._merge(value_node).items():
                    merged.setdefault(name, item)
                continue
            if key in own:
                raise self._wrong(key_node, f"the key {key} is given twice")
            own[key] = self.item(value_node)
        return {**merged, **own}

    def _merge(self, node: Any) -> dict[str, Item]:
        """Return the keys of `<<`: of a mapping, or of a list of mappings, of which the first one wins."""
        found: dict[str, Item] = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            item = self.item(part)
            if not isinstance(item.value, dict):
                raise self._wrong(part, "`<<` takes a mapping or a list of mappings")
            for name, value in item.value.items():
                found.setdefault(name, value)
            self.merged += len(item.value)
            if self.merged > 10 * yamlfile.MAX_NODES:
                raise self._wrong(part, f"merges of more than {10 * yamlfile.MAX_NODES} keys")
        return found

    def _tag(self, node: Any) -> str:
        if node.tag in _OURS:
            return str(node.tag)
        if node.tag not in _CORE:
            raise self._wrong(node, f"the tag {node.tag} is unknown: !reset and !override are known")
        return ""

    def _count(self, item: Item, node: Any) -> None:
        """Refuse aliases that expand to too many values ("billion laughs")."""
        parts = item.value.values() if isinstance(item.value, dict) else item.value
        size = 1 + sum(self.sizes[id(part)] for part in parts) if isinstance(item.value, dict | list) else 1
        self.sizes[id(item)] = size
        if size > yamlfile.MAX_NODES:
            raise self._wrong(node, f"it expands to more than {yamlfile.MAX_NODES} values")

    def _line(self, node: Any) -> int:
        return int(node.start_mark.line) + 1

    def _wrong(self, node: Any, text: str) -> SpecError:
        return SpecError(f"{self.origin.file}:{self._line(node)}: {text}")
