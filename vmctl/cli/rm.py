"""vmctl rm."""

from __future__ import annotations

from functools import partial

from vmctl import engine
from vmctl.cli import each, output, selection, withvolumes
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl rm --force web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "remove all instances; without --force, those that do not run")
    parser.add_argument("-f", "--force", action="store_true", help="kill and remove running instances too")
    withvolumes.add(parser)


def run(args: Namespace) -> int:
    """Remove each and print its name."""
    names = selection.every(args) if args.force else selection.stopped(args)
    return each(names, partial(_remove, force=args.force, volumes=args.volumes))


def _remove(name: str, *, force: bool, volumes: bool) -> None:
    its_own = withvolumes.names(name) if volumes else []
    if left := engine.rm(name, force=force):
        output.note(f"warning: {name} could not be read, and these objects are left: {'; '.join(left)}")
    withvolumes.remove(its_own)
