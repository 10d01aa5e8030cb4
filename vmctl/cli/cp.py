"""vmctl cp."""

from __future__ import annotations

import os

from vmctl.cli import output, selection
from vmctl.copying import between
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec.rules import is_name

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl cp web:/etc/hosts ."
_TAR = "-"


class _Place(NamedTuple):
    """A path of the host, or of the instance `name`."""

    name: str
    path: str


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="[NAME:]SOURCE", help="file or folder; - is a tar from standard input")
    parser.add_argument("target", metavar="[NAME:]TARGET", help="where it goes; - is a tar on standard output")
    parser.add_argument("-a", "--archive", action="store_true", help="keep owners and groups (default: root, or you)")
    parser.add_argument("-L", "--follow-link", action="store_true", help="if SOURCE is a link, copy what it leads to")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not print what is left out")


def run(args: Namespace) -> int:
    """Copy; print what was left out."""
    source, target = _place(args.source), _place(args.target)
    if bool(source.name) == bool(target.name):
        hint = f"vmctl cp {args.source} - | vmctl cp - {args.target}" if source.name else EXAMPLE
        raise SpecError("cp: one of SOURCE and TARGET has to be NAME:PATH, the other one a path of the host", hint=hint)
    left_out = _out(args, source, target) if source.name else _into(args, source, target)
    for text in () if args.quiet else left_out:
        output.note(f"left out: {text}")
    return 0


def _out(args: Namespace, source: _Place, target: _Place) -> list[str]:
    inst = selection.one(source.name)
    if target.path != _TAR:
        return between.out(inst, source.path, target.path, archive=args.archive, follow=args.follow_link)
    if os.isatty(1):
        raise SpecError("cp: a tar is not written to a terminal", hint=f"vmctl cp {args.source} - | tar -t")
    return between.out_as_tar(inst, source.path, 1, follow=args.follow_link)


def _into(args: Namespace, source: _Place, target: _Place) -> list[str]:
    inst = selection.one(target.name)
    if source.path == _TAR:
        return between.into_from_tar(inst, 0, target.path)
    return between.into(inst, source.path, target.path, archive=args.archive, follow=args.follow_link)


def _place(text: str) -> _Place:
    """Return where an argument is: a path with a colon needs a slash or a dot before it, or it is NAME:PATH."""
    name, colon, path = text.partition(":")
    if colon and is_name(name):
        if not path:
            raise SpecError(f"cp: there is no path in {text}", hint=f"{name}:/")
        return _Place(name, path)
    return _Place("", text)
