"""vmctl rename."""

from __future__ import annotations

from vmctl import renaming
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl rename web web-old"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance that does not run")
    parser.add_argument("new", metavar="NEW", help="its new name")


def run(args: Namespace) -> int:
    """Rename it and print the new name."""
    renaming.rename(instance.load(args.name), args.new)
    print(args.new)
    return 0
