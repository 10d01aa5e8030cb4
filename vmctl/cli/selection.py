"""The instances that a command is for: those given by name, or --all."""

from __future__ import annotations

import os

from vmctl.errors import NotFoundError, SpecError
from vmctl.instances.folder import Home
from vmctl.named import TYPE_CHECKING
from vmctl.spec.rules import is_name

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Sequence

    from vmctl.instances.instance import Instance
    from vmctl.survey import Seen


NOTHING = "no instance was given"


def add(parser: ArgumentParser, everything: str, *, names: str = "NAME", text: str = "instance") -> None:
    """Add the names and --all, which does what `everything` describes."""
    parser.add_argument("names", metavar=names, nargs="*", help=text)
    parser.add_argument("-a", "--all", action="store_true", help=everything)


def one(name: str) -> Instance:
    """Return the instance of a name, or else the first one of the service of that name in the stack of this folder.

    Raises the error of an unknown name, SpecError and UnreadableError.
    """
    from vmctl.instances import instance

    try:
        return instance.load(name)
    except NotFoundError:
        if not _has_stack():
            raise
        from vmctl.cli import stacknames

        found = stacknames.of_service(name)
        if not found:
            raise
        return instance.load(found[0])


def network(name: str) -> str:
    """Return the name of a network, or of the one that the stack of this folder calls so. Raises SpecError."""
    if not _has_stack():
        return name
    from vmctl.cli import stacknames
    from vmctl.net import catalog

    stack, known = stacknames.here(), catalog.names()
    return f"{stack}_{name}" if name not in known and f"{stack}_{name}" in known else name


def running(args: Namespace, *, here: bool = False) -> list[str]:
    """Return the given names, or those of all running instances. Raises SpecError for both, and for neither.

    With `here`, no name means the stack whose file is in this folder.
    """
    if here and not args.names and not args.all and (found := of_folder(last_first=True)):
        return found
    from vmctl.survey import RUNNING

    return _chosen(args, lambda seen: seen.status in RUNNING)


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


def names(given: Sequence[str], *, last_first: bool = False) -> list[str]:
    """Return the given names, and for a stack, by name or file, those of its instances in the order of a start.

    With `last_first` those of a stack are in the order of a stop. Raises SpecError.
    """
    if not given:
        if found := of_folder(last_first=last_first):
            return found
        raise SpecError(NOTHING, hint="`vmctl ps -a` lists them")
    if all(os.path.isdir(Home(name, "").directory) for name in given if is_name(name)) and all(map(is_name, given)):
        return list(given)
    from vmctl.cli import stacknames

    return stacknames.expanded(given, last_first=last_first)


def of_folder(*, last_first: bool) -> list[str]:
    """Return the instances of the stack whose file is in this folder, with a usual name; none if there is no file."""
    if not _has_stack():
        return []
    from vmctl.cli import stacknames

    return stacknames.of_folder(last_first=last_first)


def _has_stack() -> bool:
    """Return whether this folder may have a stack, without the modules that know for sure."""
    there = (name for name in os.listdir(".") if name.endswith((".yaml", ".yml")))
    return bool(os.environ.get("COMPOSE_FILE")) or any("compose" in name for name in there)


def _chosen(args: Namespace, wanted: Callable[[Seen], bool]) -> list[str]:
    if args.all and args.names:
        raise SpecError(f"--all is given, and {args.names[0]} too", hint="give names, or --all")
    if args.names:
        return names(args.names, last_first=True)
    if not args.all:
        raise SpecError(NOTHING, hint="`vmctl ps -a` lists them, --all means all of them")
    from vmctl.survey import survey

    return [seen.name for seen in survey() if wanted(seen)]
