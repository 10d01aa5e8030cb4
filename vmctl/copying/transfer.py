"""Copy between the host and an instance: a process inside, one on the host, a pipe in between."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from vmctl import backends
from vmctl.backend import HasCopy
from vmctl.copying.child import in_child
from vmctl.copying.pack import Packer, Rules
from vmctl.copying.place import Target, receive, renamed
from vmctl.copying.tar import PART
from vmctl.errors import NotFoundError
from vmctl.instances.instance import Instance
from vmctl.linux.stdio import write_all


def out(inst: Instance, path: str, target: Target, *, follow: bool) -> list[str]:
    """Copy a file or folder of an instance to the host; return a text for each file that is left out.

    Raises NotFoundError, ConflictError, TarError, and other errors of vmctl.errors, OSError.
    """
    able = _able(inst)
    rules = target.rules
    with able.reached(inst) as there, _leaving(able, there, path, rules, follow=follow) as (fd, left_out):
        left_out += receive(lambda count: os.read(fd, count), target, _open_folder)
    return left_out


def out_as_tar(inst: Instance, path: str, name: str, output: int, *, follow: bool) -> list[str]:
    """Write the tar of a file or folder of an instance to a descriptor; see `out`."""
    able = _able(inst)
    rules = Rules(owners=True, setuid=True, special=True)
    with able.reached(inst) as there, _leaving(able, there, path, rules, follow=follow) as (fd, left_out):
        renamed(lambda count: os.read(fd, count), lambda data: write_all(output, data), name)
    return left_out


def into(inst: Instance, path: str, target: Target, *, follow: bool) -> list[str]:
    """Copy a file or folder of the host into an instance; see `out`."""
    able = _able(inst)
    with _source(path, follow=follow) as (parent, name):
        is_folder = not name or stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        target = target._replace(is_folder=is_folder)
        with able.reached(inst) as there, _entering(able, there, target) as (fd, left_out):
            packer = Packer(lambda data: write_all(fd, data), target.rules)
            if name:
                packer.one(parent, name)
            else:
                packer.folder(parent)
            left_out += packer.left_out
        return left_out


def into_from_tar(inst: Instance, source: int, target: Target) -> list[str]:
    """Write the entries of a tar, which is read from a descriptor, into a folder of an instance; see `out`."""
    able = _able(inst)
    with able.reached(inst) as there, _entering(able, there, target) as (fd, left_out):
        while data := os.read(source, PART):
            write_all(fd, data)
    return left_out


def _leaving(
    able: HasCopy, inst: Instance, path: str, rules: Rules, *, follow: bool
) -> AbstractContextManager[tuple[int, list[str]]]:
    return in_child(lambda fd: able.copy_out(inst, path, fd, rules, follow=follow), reads=False)


def _entering(able: HasCopy, inst: Instance, target: Target) -> AbstractContextManager[tuple[int, list[str]]]:
    return in_child(lambda fd: able.copy_in(inst, target, fd), reads=True)


def _able(inst: Instance) -> HasCopy:
    return backends.ability(backends.load(inst.state.mode, inst.state.options), HasCopy)


def _open_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextmanager
def _source(path: str, *, follow: bool) -> Iterator[tuple[int, str]]:
    """Yield the open folder that has the source, and its name there; "" for the folder itself."""
    if follow:
        path = os.path.realpath(path) + ("/" if path.endswith("/") else "")
    above, name = os.path.split(path)
    if name in ("", ".", ".."):
        above, name = path, ""
    try:
        fd = _open_folder(above or ".")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no file or folder {path}") from None
    try:
        if name:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
        yield fd, name
    except FileNotFoundError as error:
        if error.filename != name:
            raise
        raise NotFoundError(f"there is no file or folder {path}") from None
    finally:
        os.close(fd)
