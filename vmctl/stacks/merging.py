"""Merge two descriptions of one thing: an override file over a file, or a service over the one that it extends.

The rules are those of the Compose Specification, chapters "Merge" and "Extends": mappings are merged key by key, lists
are joined, a few keys are replaced as a whole, and `!reset` and `!override` ask for something else.
"""

from __future__ import annotations

from collections.abc import Callable

from vmctl.stacks.item import OVERRIDE, RESET, Item, Place

# patterns of paths below a service; a list there is replaced as a whole
_REPLACED = {("command",), ("entrypoint",), ("healthcheck", "test")}
# lists there are other forms of mappings
_PAIRS = {("environment",), ("labels",), ("build", "args"), ("sysctls",)}
_NAMES = {("depends_on",): "condition", ("networks",): ""}


def merged(base: Item, over: Item, path: tuple[str, ...] = ()) -> Item:
    """Return `base` with the values of `over`; `path` is that of both in the file. Raises SpecError."""
    if over.tag == RESET:
        return over.like(None)
    if over.value is None and not over.tag:
        return base
    inside = path[2:] if path[:1] == ("services",) else ("", *path)  # below a service, if it is in one
    if over.tag == OVERRIDE or base.value is None or inside in _REPLACED:
        return cleared(over)
    if inside in _PAIRS:
        return _mappings(_pairs(base, path), _pairs(over, path), path)
    if inside in _NAMES:
        condition = _NAMES[inside]
        return _mappings(_names(base, condition), _names(over, condition), path)
    if inside in (("build",), ("extends",)):
        key = "context" if inside == ("build",) else "service"
        return _mappings(_in_mapping(base, key), _in_mapping(over, key), path)
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        return _driver(base, over) if inside == ("logging",) else _mappings(base, over, path)
    if inside in _KEYED or (isinstance(base.value, list) and isinstance(over.value, list)):
        return _lists(_listed(base), _listed(over), _KEYED.get(inside, _whole))
    return cleared(over)


def cleared(item: Item) -> Item:
    """Return an item without what is marked `!reset` in it: there is nothing before it in the first file."""
    if item.tag == RESET:
        return item.like(None)
    if isinstance(item.value, dict):
        return item.like({key: cleared(part) for key, part in item.value.items() if part.tag != RESET})
    if isinstance(item.value, list):
        return item.like([cleared(part) for part in item.value if part.tag != RESET])
    return item.like(item.value) if item.tag else item


def _mappings(base: Item, over: Item, path: tuple[str, ...]) -> Item:
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return cleared(over)
    found = dict(base.value)
    for key, item in over.value.items():
        if item.tag == RESET:
            found.pop(key, None)
        elif key in found:
            found[key] = merged(found[key], item, (*path, key))
        else:
            found[key] = cleared(item)
    return over.like(found)


def _lists(base: Item, over: Item, key: Callable[[Item], object]) -> Item:
    """Return both lists as one; of two entries with the same key, the second one stays, in the place of the first."""
    found: dict[object, Item] = {}
    for item in (*base.value, *over.value):
        found[key(item)] = cleared(item)
    return over.like(list(found.values()))


def _driver(base: Item, over: Item) -> Item:
    """Merge `logging`: the options are those of one driver."""
    drivers = [item.value["driver"].value for item in (base, over) if "driver" in item.value]
    return _mappings(base, over, ()) if len(set(drivers)) < 2 else cleared(over)


def _pairs(item: Item, path: tuple[str, ...]) -> Item:
    return item.like({key: place.item for key, place in Place(item, path).pairs().items()})


def _names(item: Item, condition: str) -> Item:
    """Return the mapping that a list of names is the short form of."""
    if not isinstance(item.value, list):
        return item
    whole = {condition: item.like("service_started")} if condition else None
    return item.like({str(part.value): part.like(whole) for part in item.value})


def _in_mapping(item: Item, key: str) -> Item:
    return item.like({key: item}) if isinstance(item.value, str) else item


def _listed(item: Item) -> Item:
    return item if isinstance(item.value, list) else item.like([item])


def _whole(item: Item) -> object:
    return repr(item.plain())


def _target(item: Item) -> object:
    """Return the place in the instance of a volume, secret or configuration."""
    value = item.value
    if isinstance(value, dict):
        found = value.get("target") or value.get("source")
        return found.value if found is not None and isinstance(found.value, str) else repr(item.plain())
    parts = str(value).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


# lists with an entry per key, below a service
_KEYED: dict[tuple[str, ...], Callable[[Item], object]] = {
    ("volumes",): _target,
    ("secrets",): _target,
    ("configs",): _target,
    **{(name,): _whole for name in ("tmpfs", "env_file", "expose", "ports", "profiles", "cap_add", "cap_drop")},
    **{(name,): _whole for name in ("dns", "dns_search", "dns_opt")},
}
