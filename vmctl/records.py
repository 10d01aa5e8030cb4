"""Records on disk: JSON objects with named keys and a format number, checked against the classes they are read into.

Unknown keys are refused, and missing keys get their default. For any other content a reader raises `UnreadableError`,
and nothing else: the file may be the result of a crash, a full disk or a hostile guest.
"""

from __future__ import annotations

import errno
import os

from vmctl.errors import VmctlError
from vmctl.light import json
from vmctl.linux import filetree
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

FORMAT = 1
MAX_BYTES = 16 << 20  # limit for a file that is read as a whole
_FORMAT_KEY = "format"


class UnreadableError(VmctlError):
    """A record on disk cannot be read: it is damaged, or a later vmctl has written it."""


class LaterError(UnreadableError):
    """A later vmctl has written a record: an earlier line must not be read in its place."""


def read(path: str, what: str) -> Any:
    """Return the JSON value in a file. Raises UnreadableError, FileNotFoundError."""
    return parse(content(path, what), what)


def content(path: str, what: str) -> bytes:
    """Return the content of a file. Raises UnreadableError if it is not a regular file, or too large."""
    found, begin = _tail(path, what, MAX_BYTES)
    if begin:
        raise UnreadableError(f"{what} is larger than {MAX_BYTES >> 20} MiB")
    return found


def _tail(path: str, what: str, size: int) -> tuple[bytes, int]:
    """Return the last `size` bytes of a regular file, and their offset. Raises UnreadableError, FileNotFoundError."""
    try:
        with open(filetree.open_file(path), "rb") as file:
            begin = file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size), begin
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError(f"{what} cannot be read: {error.strerror}") from None


def parse(raw: bytes | str, what: str) -> Any:
    """Return a JSON value. Raises UnreadableError."""
    try:
        return _value(raw)
    except (ValueError, RecursionError):
        raise UnreadableError(f"{what} is damaged: it is not JSON, or contains a number that is too large") from None


def _value(raw: bytes | str) -> Any:
    """Return a JSON value. Raises ValueError if it is not UTF-8, not JSON, or has a large number; RecursionError."""
    return _JSON.decode(raw if isinstance(raw, str) else raw.decode())


def _number(text: str) -> int | float:
    """Return a number that any code can compute with and any JSON parser can read. Raises ValueError."""
    number = float(text) if set(text) & set(".eE") else int(text)
    if not -(1 << 63) < number < 1 << 63:  # also infinity and NaN
        raise ValueError(text)
    return number


_JSON = json.JSONDecoder(parse_float=_number, parse_int=_number, parse_constant=_number)  # constants: NaN, Infinity


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
        raise LaterError(
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
    refuse_unknown(values, declared, what)
    return {key: _typed(declared[key], value, f"{what}: {key}", records) for key, value in values.items()}


def refuse_unknown(values: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Raise UnreadableError if an object has a key that is not known."""
    if unknown := sorted(values.keys() - known):
        raise LaterError(f"{what} has the unknown key {_short(unknown[0])}", hint="a later vmctl may know it")


def _typed(declared: str, value: Any, what: str, records: Mapping[str, type[Any]]) -> Any:
    if type(value) in _SCALARS.get(declared, ()) or (value is None and declared.endswith("| None")):  # most of them
        return value
    for name in declared.split(" | "):
        found = _as(name, value, what, records)
        if found is not _NO:
            return found
    expected = declared.replace("Literal", "one of ")
    raise UnreadableError(f"{what} is damaged: expected {expected}, got {_short(value)}")


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
    try:
        return json.dumps(value, default=str)[:60]
    except RecursionError:
        return "a deeply nested value"


def line(value: Mapping[str, Any]) -> str:
    """Return an object as a line of a file, without its end."""
    return json.dumps(versioned(value))


def append(path: str, value: Mapping[str, Any]) -> None:
    """Append an object as one line, with one write: a reader sees the whole line, or a last line without an end.

    The alternative is to replace a small file by rename(2). Then ext4 writes the file to the disk at once, which takes
    1 to 6 ms (auto_da_alloc in ext4(5)).
    """
    text = line(value).encode() + b"\n"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if is_cut(fd):  # by a crash of the host; this line must not become its continuation
            text = b"\n" + text
        written = os.write(fd, text)
        if written < len(text):  # the disk is full; half a line would spoil the next one
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


def is_cut(fd: int) -> bool:
    """Return whether the last line of a file has no end."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


class Lines(NamedTuple):
    """The objects of a file, one per line, and the number of damaged lines."""

    objects: list[dict[str, Any]]
    damaged: int


def lines(path: str, what: str, *, last_bytes: int | None = None) -> Lines:
    """Return the objects of a file, or of its last bytes; none if the file does not exist. Ignores an unfinished line.

    A damaged line is counted and skipped. Raises UnreadableError for a line of a later format, and as `content` does.
    """
    try:
        raw, begin = (content(path, what), 0) if last_bytes is None else _tail(path, what, last_bytes)
    except FileNotFoundError:
        return Lines([], 0)
    objects, damaged = [], 0
    for line in raw.split(b"\n")[bool(begin) : -1]:  # without its beginning, the first line may be incomplete
        try:
            value = _value(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            objects.append(checked_format(value, what))
        else:
            damaged += 1
    return Lines(objects, damaged)
