"""The msgspec types of a workload file, derived from the classes of `workload.py`: each key is declared once.

A scalar such as `256M` is a text in the file and a value in the class; its parser is in this file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import reduce
from operator import or_
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from vmctl.spec import units
from vmctl.spec.workload import Bytes, FileMode, HttpProbe, Port, Restart, Seconds, Volume, Workload


def parse_port(text: str) -> Port:
    """Return the port of `[address:]host:guest[/udp]`. Raises ValueError; its text begins after "expected"."""
    match = re.fullmatch(r"(?:(\[[0-9a-fA-F:]+\]|[0-9.]+):)?([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?", text)
    if not match or not all(0 < int(number) < 65536 for number in match.group(2, 3)):
        raise ValueError(f"a port such as 8080:8000, 0.0.0.0:53:53/udp, not {text!r}")
    address = (match[1] or "127.0.0.1").strip("[]")
    try:
        inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        raise ValueError(f"an IP address before the ports, not {address!r}") from None
    return Port(address, int(match[2]), int(match[3]), match[4] or "tcp")  # type: ignore[arg-type]


def parse_volume(text: str) -> Volume:
    """Return the volume of `source:target[:ro]`. Raises ValueError with what was expected."""
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not source or not target.startswith("/") or options not in ("", "ro", "rw"):
        raise ValueError(f"a volume such as ./data:/data or ./data:/data:ro, not {text!r}")
    if not source.startswith(("/", "./", "../", "~")) and source not in (".", ".."):  # docker means a named volume
        raise ValueError(f"a path before the first colon: ./{source} for the folder; there are no named volumes yet")
    path = os.path.expanduser(source)
    if path.startswith("~"):
        raise ValueError(
            f"the home folder of a user before the first colon; there is no user {path[1:].partition('/')[0]}"
        )
    return Volume(path, target, options == "ro")


def _parse_http(text: str) -> HttpProbe:
    match = re.fullmatch(r"([0-9]{1,5})(/[^\s]*)?", text)
    if not match or not 0 < int(match[1]) < 65536:
        raise ValueError(f"a port and a path such as 8000/health, not {text!r}")
    return HttpProbe(int(match[1]), match[2] or "/")


def _parse_restart(text: str) -> Restart:
    match = re.fullmatch(r"(no|always|on-failure)(?::([0-9]{1,9}))?", text)
    if not match or (match[2] and match[1] != "on-failure"):
        raise ValueError(f"no, always, on-failure or on-failure:3, not {text!r}")
    return Restart(match[1], int(match[2]) if match[2] else None)  # type: ignore[arg-type]


def _parse_mode(text: str) -> FileMode:
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise ValueError(f'an octal mode in quotes such as "0644", not {text!r}')
    return FileMode(int(text, 8))


_NUMBER_TOO: dict[str, Any] = {"type": ["string", "integer"]}
# type -> (parser, JSON Schema); all are texts, a size may also be a number of bytes, a probe by HTTP only a port
_SCALARS: dict[Any, tuple[Any, dict[str, Any]]] = {
    Bytes: (lambda text: Bytes(units.parse_size(text)), {**_NUMBER_TOO, "examples": ["256M", "1.5GiB"]}),
    Seconds: (lambda text: Seconds(units.parse_duration(text)), {"examples": ["60s", "500ms"]}),
    FileMode: (_parse_mode, {"pattern": "^0?[0-7]{3,4}$", "examples": ["0644"]}),
    Port: (parse_port, {"examples": ["8080:8000", "0.0.0.0:53:53/udp"]}),
    Volume: (parse_volume, {"examples": ["./data:/data:ro"]}),
    HttpProbe: (_parse_http, {**_NUMBER_TOO, "examples": ["8000/"]}),
    Restart: (_parse_restart, {"examples": ["no", "on-failure:3", "always"]}),
}


class _Text:
    """The msgspec type of a scalar: one type per parser, so that `parse_scalar` can choose the parser."""

    scalar: Any


def _text_type(scalar: Any) -> type[_Text]:
    return type(scalar.__name__, (_Text,), {"scalar": scalar})


def parse_scalar(kind: type[_Text], value: Any) -> Any:
    """Return the value of a text of the file, in a box (msgspec's `dec_hook`). Raises ValueError."""
    parse = _SCALARS[kind.scalar][0]
    if not isinstance(value, str):
        if kind.scalar in (HttpProbe,) and isinstance(value, int):
            value = str(value)
        elif kind.scalar is Bytes and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            value = f"{value}B"
        else:
            raise ValueError(f"Expected a text in quotes, got {_name_of(value)}")
    try:
        parsed = parse(value)
    except ValueError as error:
        raise ValueError(f"Expected {error}") from None
    box = kind()
    box.value = parsed  # type: ignore[attr-defined]
    return box


def scalar_schema(kind: type[_Text]) -> dict[str, Any]:
    """Return the JSON Schema of a scalar (msgspec's `schema_hook`)."""
    return {"type": "string", **_SCALARS[kind.scalar][1]}


def _name_of(value: Any) -> str:
    return {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}.get(
        type(value), "nothing"
    )


STRUCTS: dict[Any, Any] = {}


def key_of(field: str) -> str:
    """Return the key of a field: the unit is in the name of the field, but in the value of the file."""
    return field.removesuffix("_bytes").removesuffix("_s")


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, localns={"Literal": Literal})  # workload.py imports it for type checkers only


def _struct_type(kind: Any) -> Any:
    """Return the msgspec type for a type in `workload.py`."""
    if kind in _SCALARS:
        return _text_type(kind)
    if hasattr(kind, "_fields"):
        return _derive(kind)
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
