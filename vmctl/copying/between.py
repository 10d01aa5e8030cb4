"""Copies as a user names them: a path of the host and one of an instance, by the rules of cp(1)."""

from __future__ import annotations

import os

from vmctl.copying import transfer
from vmctl.copying.pack import Rules
from vmctl.copying.place import Target
from vmctl.errors import UnavailableError
from vmctl.instances.instance import Instance
from vmctl.linux import usernamespace


def out(inst: Instance, path: str, host_path: str, *, archive: bool, follow: bool) -> list[str]:
    """Copy a file or folder of an instance to the host; return a text for each file that is left out.

    With `archive` files keep their owners; with `follow` a link is replaced by what it leads to. Raises the errors of
    `transfer.out`, and UnavailableError if the caller may not give files to others.
    """
    path, name, contents = _named(_inside(path))
    if archive and not usernamespace.is_host_root():
        raise UnavailableError("--archive: only root can give files on the host other owners", hint="leave it out")
    goal = Target(host_path, name or inst.name, contents=contents or not name, rules=Rules(owners=archive))
    return transfer.out(inst, path, goal, follow=follow)


def out_as_tar(inst: Instance, path: str, output: int, *, follow: bool) -> list[str]:
    """Write the tar of a file or folder of an instance to a descriptor; see `out`."""
    path, name, _ = _named(_inside(path))
    return transfer.out_as_tar(inst, path, name, output, follow=follow)


def into(inst: Instance, host_path: str, path: str, *, archive: bool, follow: bool) -> list[str]:
    """Copy a file or folder of the host into an instance; see `out`."""
    host_path, name, contents = _named(host_path)
    name = name or os.path.basename(os.path.realpath(host_path))
    rules = Rules(owners=archive, setuid=archive)
    goal = Target(_inside(path), name, contents=contents or not name, rules=rules)
    return transfer.into(inst, host_path, goal, follow=follow)


def into_from_tar(inst: Instance, source: int, path: str) -> list[str]:
    """Write the entries of a tar, which is read from a descriptor, into a folder of an instance; see `out`."""
    rules = Rules(owners=True, setuid=True)  # the tar of the user counts, inside
    return transfer.into_from_tar(inst, source, Target(_inside(path), "", tar=True, rules=rules))


def _inside(path: str) -> str:
    """Return a path of an instance; as in docker, one without a slash begins at its root."""
    return path if path.startswith("/") else f"/{path}"


def _named(path: str) -> tuple[str, str, bool]:
    """Return a source, its name ("" for a folder without one), and whether only its content is meant."""
    contents = path.endswith("/.") or path == "."
    name = os.path.basename(os.path.normpath(path))
    return path, "" if name in (".", "..", "/") else name, contents
