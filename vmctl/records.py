"""Records on disk: JSON objects with named keys and a format number, checked against the classes they are read into.

Unknown keys are refused, and missing keys get their default. For any other content a reader raises `UnreadableError`,
and nothing else: the file may be the result of a crash, a full disk or a hostile guest.
"""

from __future__ import annotations

import errno
import json
import os

from vmctl.errors import VmctlError
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FORMAT = 1
MAX_BYTES = 16 << 20  # limit for a file that is read as a whole
_FORMAT_KEY = "format"


class UnreadableError(VmctlError):
    """A record on disk cannot be read: it is damaged, or a later vmctl has written it."""


def read(path: str, what: str) -> Any:
    """Return the JSON value in a file. Raises UnreadableError, FileNotFoundError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UnreadableError(f"{what} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise UnreadableError(f"{what} is larger than {MAX_BYTES >> 20} MiB")
    return parse(raw, what)


def parse(raw: bytes | str, what: str) -> Any:
    """Return a JSON value. Raises UnreadableError."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):  # ValueError: not UTF-8, not JSON, or a number with too many digits
        raise UnreadableError(f"{what} is damaged: it is not JSON") from None


def plain(record: Any) -> Any:
    """Return a record as mappings, lists and plain numbers, with all keys, for any JSON encoder."""
    if hasattr(record, "_asdict"):
        return {key: plain(part) for key, part in record._asdict().items()}
    if isinstance(record, tuple):
        return [plain(part) for part in record]
    for kind in (int, float):  # of Bytes, Seconds and their like msgspec takes none
        if isinstance(record, kind) and not isinstance(record, bool):
            return kind(record)
    return record


def differing(record: Any) -> Any:
    """Return a record like `plain`, without keys that have their default: a key added later changes nothing here."""
    if hasattr(record, "_asdict"):
        defaults = record._field_defaults
        return {
            key: differing(part)
            for key, part in record._asdict().items()
            if key not in defaults or part != defaults[key]
        }
    if isinstance(record, tuple):
        return [differing(part) for part in record]
    return record


def versioned(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object for a file: the values and the format number."""
    return {_FORMAT_KEY: FORMAT, **values}


def checked_format(value: Any, what: str) -> dict[str, Any]:
    """Return the values of an object from a file. Raises UnreadableError for a later format or another JSON type."""
    if not isinstance(value, dict):
        raise UnreadableError(f"{what} is damaged: expected an object")
    number = value.get(_FORMAT_KEY, FORMAT)
    if type(number) is not int or number > FORMAT:
        raise UnreadableError(
            f"{what} was written by a later vmctl: it has format {str(number)[:20]}, this vmctl reads {FORMAT}",
            hint="update vmctl",
        )
    return {key: part for key, part in value.items() if key != _FORMAT_KEY}


def build(kind: type[Any], values: Any, what: str, records: Mapping[str, type[Any]]) -> Any:
    """Return a record of class `kind` from an object; `records` maps names of classes to classes.

    Raises UnreadableError as `fields` does, and if a key without a default is missing.
    """
    found = fields(kind, values, what, records)
    if missing := set(kind._fields) - kind._field_defaults.keys() - found.keys():
        raise UnreadableError(f"{what} is damaged: the key {min(missing)} is missing")
    return kind(**found)


def fields(kind: type[Any], values: Any, what: str, records: Mapping[str, type[Any]] = {}) -> dict[str, Any]:
    """Return the values of an object for a class, each converted to the type that the class declares for the key.

    Raises UnreadableError for an unknown key and for a value of another type.
    """
    declared: dict[str, str] = kind.__annotations__
    if not isinstance(values, dict):
        raise UnreadableError(f"{what} is damaged: expected an object, got {_short(values)}")
    if unknown := sorted(values.keys() - declared.keys()):
        raise UnreadableError(f"{what} has the unknown key {_short(unknown[0])}", hint="a later vmctl may know it")
    return {key: _typed(declared[key], value, f"{what}: {key}", records) for key, value in values.items()}


def _typed(declared: str, value: Any, what: str, records: Mapping[str, type[Any]]) -> Any:
    for name in declared.split(" | "):
        found = _as(name, value, what, records)
        if found is not _NO:
            return found
    raise UnreadableError(f"{what} is damaged: expected {declared}, got {_short(value)}")


_NO = object()
# the JSON types of the types that the classes declare; bool is a subclass of int in Python, but not accepted as one
_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "None": (type(None),),
}


def _as(name: str, value: Any, what: str, records: Mapping[str, type[Any]]) -> Any:
    """Return a value converted to the type that an annotation names, or `_NO` if it does not have that type."""
    if name.startswith("Literal["):
        return value if isinstance(value, str) and repr(value) in name[8:-1].split(", ") else _NO
    if name == "list[str]":
        return value if isinstance(value, list) and all(isinstance(part, str) for part in value) else _NO
    if name == "dict[str, Any]":
        return value if isinstance(value, dict) else _NO
    if name.startswith("Mapping["):
        fits = isinstance(value, dict) and all(isinstance(part, str) for part in value.values())
        return value if fits else _NO
    if name.startswith("tuple["):
        inner = name[6:].partition(",")[0]
        parts = [_as(inner, part, what, records) for part in value] if isinstance(value, list) else [_NO]
        return tuple(parts) if _NO not in parts else _NO
    if name in _SCALARS:
        return value if type(value) in _SCALARS[name] else _NO
    kind = records[name]
    if hasattr(kind, "_fields"):
        return build(kind, value, what, records) if isinstance(value, dict) else _NO
    base = next(base for base in (int, float) if issubclass(kind, base))  # Bytes, Seconds, FileMode
    return kind(value) if type(value) in (int, base) else _NO


def _short(value: Any) -> str:
    return json.dumps(value, default=str)[:60]


def append(path: str, value: Mapping[str, Any]) -> None:
    """Append an object as one line, with one write: a reader sees the whole line, or a last line without an end.

    The alternative is to replace a small file by rename(2). Then ext4 writes the file to the disk at once, which takes
    1 to 6 ms (auto_da_alloc in ext4(5)).
    """
    line = json.dumps(versioned(value)).encode() + b"\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        written = os.write(fd, line)
        if written < len(line):  # the disk is full; half a line would spoil the next one
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


class Lines(NamedTuple):
    """The objects of a file, one per line, and the number of damaged lines."""

    objects: list[dict[str, Any]]
    damaged: int


def lines(path: str, what: str, *, last_bytes: int | None = None) -> Lines:
    """Return the objects of a file, or of its last bytes; none if the file does not exist. Ignores an unfinished line.

    A damaged line is counted and skipped. Raises UnreadableError for a line of a later format.
    """
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = file.seek(max(0, end - (last_bytes or MAX_BYTES)))
            found = file.read(last_bytes or MAX_BYTES).split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return Lines([], 0)
    except (IsADirectoryError, PermissionError) as error:
        raise UnreadableError(f"{what} cannot be read: {error.strerror}") from None
    objects, damaged = [], 0
    for line in found[bool(begin) :]:  # the first line may be incomplete if the file is not read from its beginning
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            objects.append(checked_format(value, what))
        else:
            damaged += 1
    return Lines(objects, damaged)
