"""The flag -v of `rm` and `down`: remove the named volumes of an instance, too."""

from __future__ import annotations

from vmctl.cli import output
from vmctl.errors import NotFoundError, StateError, VmctlError
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser


def add(parser: ArgumentParser) -> None:
    """Add --volumes."""
    parser.add_argument(
        "-v", "--volumes", action="store_true", help="remove its named volumes, too, unless other instances use them"
    )


def names(name: str) -> list[str]:
    """Return the names of the volumes of an instance; none if it does not exist or cannot be read."""
    from vmctl.volumes import places

    try:
        return places.names(instance.load(name).work)
    except VmctlError:
        return []


def remove(volumes: list[str]) -> None:
    """Remove volumes; one that another instance uses is kept, which is printed to stderr."""
    from vmctl.volumes import store

    for name in volumes:
        try:
            store.remove(name)
        except NotFoundError:
            pass
        except StateError as error:
            output.note(f"{error}, and kept")
