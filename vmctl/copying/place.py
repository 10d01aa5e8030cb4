"""Where a copy goes: by the rules of cp(1), in an instance and on the host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

from vmctl.copying.pack import FOLDERS, Rules
from vmctl.copying.tar import END, FILE, FOLDER, HARD_LINK, Entry, Read, Reader, TarError, Write, header, padding
from vmctl.copying.unpack import Unpacker, parts_of
from vmctl.errors import ConflictError, NotFoundError, VmctlError
from vmctl.named import NamedTuple

OpenFolder = Callable[[str], int]  # returns a descriptor; follows links as the caller means it


class Target(NamedTuple):
    """Where to copy something that is called `name` at its source."""

    path: str
    name: str
    is_folder: bool = False  # what is copied into an instance; out of one, the tar shows it
    contents: bool = False  # the content of a folder, not the folder itself
    tar: bool = False  # a tar of the user, whose entries go into the folder `path` by their names
    rules: Rules = Rules()


def receive(read: Read, target: Target, open_folder: OpenFolder) -> list[str]:
    """Write what is copied, the tar of vmctl.copying.pack or the user's. Return a text for each file that is left out.

    Raises NotFoundError, ConflictError, TarError, OSError.
    """
    reader = Reader(read)
    entries = reader.entries()
    if target.tar:
        return _unpacked(reader, entries, target, open_folder)
    first = next(entries, None)
    if first is None:
        raise TarError(f"nothing of {target.name} has arrived")
    if first.kind == FOLDER and not parts_of(first.name):
        with _folder(target, open_folder) as (fd, made):
            unpacker = Unpacker(fd, reader, target.rules)
            unpacker.all(chain([first] if made else [], entries))
            return unpacker.left_out
    with _parent(target, open_folder) as (fd, name):
        unpacker = Unpacker(fd, reader, target.rules)
        unpacker.one(first, name)
    if unpacker.left_out:
        raise VmctlError(f"{target.name} cannot be copied: it is not a file, a folder or a link")
    if next(entries, None) is not None:
        raise TarError(f"more than {target.name} has arrived")
    return []


def renamed(read: Read, write: Write, name: str) -> None:
    """Write the tar of vmctl.copying.pack again, with the names that its user expects."""
    reader = Reader(read)
    top = os.fsencode(name) or b"."
    empty = True
    for entry in reader.entries():
        empty = False
        write(header(_below(top, entry)))
        if entry.kind == FILE:
            for part in reader.content():
                write(part)
            write(padding(entry.size))
    if empty:
        raise TarError(f"nothing of {name} has arrived")
    write(END)


def _below(top: bytes, entry: Entry) -> Entry:
    parts = parts_of(entry.name)
    is_top = not entry.name.startswith(b"./")  # a single file, or the folder itself
    target = b"/".join([top, *parts_of(entry.target)]) if entry.kind == HARD_LINK else entry.target
    return entry._replace(name=top if is_top else b"/".join([top, *parts]), target=target)


def _unpacked(reader: Reader, entries: Iterator[Entry], target: Target, open_folder: OpenFolder) -> list[str]:
    try:
        fd = open_folder(target.path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{target.path} is not a folder, which a tar needs as its target") from None
    try:
        unpacker = Unpacker(fd, reader, target.rules)
        unpacker.all(entry for entry in entries if parts_of(entry.name))
        return unpacker.left_out
    finally:
        os.close(fd)


@contextmanager
def _folder(target: Target, open_folder: OpenFolder) -> Iterator[tuple[int, bool]]:
    """Yield the folder that takes the content of the source, and whether it is new."""
    try:
        above, name = open_folder(target.path), "" if target.contents else target.name
    except NotADirectoryError:
        raise ConflictError(f"{target.path} is not a folder, but {target.name} is one") from None
    except FileNotFoundError:
        above, name = _above(target, open_folder)
    made = False
    try:
        if name:
            try:
                os.mkdir(name, 0o700, dir_fd=above)
                made = True
            except FileExistsError:
                pass
            try:
                inner = os.open(name, FOLDERS, dir_fd=above)
            except OSError:
                raise ConflictError(f"{name} in {target.path} is not a folder, but {target.name} is one") from None
            os.close(above)
            above = inner
        yield above, made
    finally:
        os.close(above)


@contextmanager
def _parent(target: Target, open_folder: OpenFolder) -> Iterator[tuple[int, str]]:
    """Yield the folder that gets a file, and the name of the file in it."""
    try:
        fd, name = open_folder(target.path), target.name
    except (FileNotFoundError, NotADirectoryError):
        if target.path.endswith(("/", "/.")):
            raise NotFoundError(f"there is no folder {target.path}") from None
        fd, name = _above(target, open_folder)
    try:
        yield fd, name
    finally:
        os.close(fd)


def _above(target: Target, open_folder: OpenFolder) -> tuple[int, str]:
    """Return the folder above the target, which has to exist, and the last part of the target."""
    above, name = os.path.split(target.path.rstrip("/"))
    if name in ("", ".", ".."):
        raise NotFoundError(f"there is no folder {target.path}")
    try:
        return open_folder(above or "."), name
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"there is no folder {above}", hint="make it first: only the last part is created"
        ) from None
