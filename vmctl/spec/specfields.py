"""The msgspec types of a workload file, derived from the classes of `workload.py`: each key is declared once.

A scalar such as `256M` is a text in the file and a value in the class; its parser is in `scalars.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from vmctl.spec.scalars import PARSERS, key_of
from vmctl.spec.workload import (
    Bytes,
    Device,
    FileMode,
    HttpProbe,
    Joined,
    Port,
    Restart,
    Seconds,
    Signal,
    Tmpfs,
    Ulimit,
    Volume,
    Workload,
)

_NUMBER_TOO: dict[str, Any] = {"type": ["string", "integer"]}
# type -> its JSON Schema; all are texts, a size may also be a number of bytes, a probe by HTTP only a port
_SCALARS: dict[Any, dict[str, Any]] = {
    Bytes: {**_NUMBER_TOO, "examples": ["256M", "1.5GiB", "64m"]},
    Seconds: {"examples": ["60s", "500ms"]},
    FileMode: {"pattern": "^0?[0-7]{3,4}$", "examples": ["0644"]},
    Port: {"examples": ["8080:8000", "0.0.0.0:53:53/udp"]},
    Volume: {"examples": ["./data:/data:ro", "data:/data", "/cache"]},
    Device: {"examples": ["/dev/fuse", "/dev/ttyUSB0:/dev/modem:rw"]},
    Tmpfs: {"examples": ["/run", "/tmp:size=64M,mode=1777,noexec"]},
    Ulimit: {"examples": ["nofile=1024:2048", "core=0"]},
    HttpProbe: {**_NUMBER_TOO, "examples": ["8000/"]},
    Signal: {**_NUMBER_TOO, "examples": ["SIGQUIT", "RTMIN+3"]},
    Restart: {"examples": ["no", "on-failure:3", "unless-stopped"]},
}

_BY_NAME = (Joined,)  # may also be a text, which is the first key


class _Text:
    """The msgspec type of a scalar: one type per parser, so that `parse_scalar` can choose the parser."""

    scalar: Any


def _text_type(scalar: Any) -> type[_Text]:
    return type(scalar.__name__, (_Text,), {"scalar": scalar})


def parse_scalar(kind: type[_Text], value: Any) -> Any:
    """Return the value of a text of the file, in a box (msgspec's `dec_hook`). Raises ValueError."""
    if not isinstance(value, str):
        if kind.scalar in (HttpProbe, Signal) and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        elif kind.scalar is Bytes and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            value = f"{value}B"
        else:
            raise ValueError(f"Expected a text in quotes, got {_name_of(value)}")
    try:
        parsed = PARSERS[kind.scalar.__name__](value)
    except ValueError as error:
        raise ValueError(f"Expected {error}") from None
    box = kind()
    box.value = parsed  # type: ignore[attr-defined]
    return box


def scalar_schema(kind: type[_Text]) -> dict[str, Any]:
    """Return the JSON Schema of a scalar (msgspec's `schema_hook`)."""
    return {"type": "string", **_SCALARS[kind.scalar]}


def _name_of(value: Any) -> str:
    return {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}.get(
        type(value), "nothing"
    )


STRUCTS: dict[Any, Any] = {}


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, localns={"Literal": Literal})  # workload.py imports it for type checkers only


def _struct_type(kind: Any) -> Any:
    """Return the msgspec type for a type in `workload.py`."""
    if kind in _SCALARS:
        return _text_type(kind)
    if hasattr(kind, "_fields"):
        return str | _derive(kind) if kind in _BY_NAME else _derive(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Mapping:
        return dict[str, str | int | float | bool]
    if not arguments or origin is Literal:
        return kind
    if origin is tuple:
        return list[_struct_type(arguments[0])]  # type: ignore[misc]
    return reduce(or_, map(_struct_type, arguments))  # a union


def _derive(kind: Any) -> Any:
    hints = _hints(kind)
    fields: list[Any] = []
    for field in kind._fields:
        declared = _struct_type(hints[field])
        if field in kind._field_defaults:
            fields.append((key_of(field), declared | msgspec.UnsetType, msgspec.UNSET))
        else:
            fields.append((key_of(field), declared))
    struct = msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True, frozen=True, kw_only=True)
    STRUCTS[kind], _KINDS[struct] = struct, kind
    return struct


_KINDS: dict[Any, Any] = {}
_derive(Workload)


def defaults() -> dict[str, dict[str, Any]]:
    """Return the defaults of each class: its name -> key -> value."""
    return {kind.__name__: {key_of(field): value for field, value in kind._field_defaults.items()} for kind in STRUCTS}


def to_values(value: Any) -> Any:
    """Return a value with the classes of workload.py instead of msgspec's structs, and tuples instead of lists."""
    if isinstance(value, _Text):
        return value.value  # type: ignore[attr-defined]
    if type(value) in _KINDS:
        kind = _KINDS[type(value)]
        given = {field: getattr(value, key_of(field)) for field in kind._fields}
        return kind(**{field: to_values(part) for field, part in given.items() if part is not msgspec.UNSET})
    if isinstance(value, list):
        return tuple(to_values(part) for part in value)
    if isinstance(value, dict):
        return {key: _env_text(part) for key, part in value.items()}
    return value


def _env_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
