"""The instances that a command is for: those given by name, or --all."""

from __future__ import annotations

from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from vmctl.survey import Seen


def add(parser: ArgumentParser, everything: str, *, names: str = "NAME", text: str = "instance") -> None:
    """Add the names and --all, which does what `everything` describes."""
    parser.add_argument("names", metavar=names, nargs="*", help=text)
    parser.add_argument("-a", "--all", action="store_true", help=everything)


def running(args: Namespace) -> list[str]:
    """Return the given names, or those of all running instances. Raises SpecError for both, and for neither."""
    return _chosen(args, lambda seen: seen.status in ("running", "paused"))


def with_status(args: Namespace, status: str) -> list[str]:
    """Return the given names, or those of all instances with this status. Raises SpecError as above."""
    return _chosen(args, lambda seen: seen.status == status)


def stopped(args: Namespace) -> list[str]:
    """Return the given names, or those of all instances that are known not to run. Raises SpecError as above."""
    from vmctl.usage import STOPPED

    return _chosen(args, lambda seen: seen.status in STOPPED)


def every(args: Namespace) -> list[str]:
    """Return the given names, or those of all instances. Raises SpecError as above."""
    return _chosen(args, lambda seen: True)


def _chosen(args: Namespace, wanted: Callable[[Seen], bool]) -> list[str]:
    if args.all and args.names:
        raise SpecError(f"--all is given, and {args.names[0]} too", hint="give names, or --all")
    if args.names:
        return list(args.names)
    if not args.all:
        raise SpecError("no instance was given", hint="`vmctl ps -a` lists them, --all means all of them")
    from vmctl.survey import survey

    return [seen.name for seen in survey() if wanted(seen)]
