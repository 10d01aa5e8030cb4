"""`--filter KEY=VALUE` of verbs that list something."""

from __future__ import annotations

from contextlib import suppress

from vmctl.errors import NotFoundError, SpecError
from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeVar

    Found = TypeVar("Found")


def add(parser: ArgumentParser, text: str) -> None:
    """Add --filter with its help text; it can be repeated."""
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help=text)


def parse(texts: Sequence[str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return key and value of each filter. Raises SpecError for other keys than these."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in keys or not equals:
            raise SpecError(f"--filter: expected KEY=VALUE, got {text}", hint=f"the keys are {', '.join(keys)}")
        found.append((key, value))
    return found


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Return whether labels have one that is given as NAME or NAME=VALUE."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def readable(names: Iterable[str], find: Callable[[str], Found]) -> Iterator[Found]:
    """Yield what `find` returns for each name, unless it is gone by now; why one cannot be read is printed."""
    from vmctl.cli import output

    for name in names:
        try:
            with suppress(NotFoundError):
                yield find(name)
        except UnreadableError as error:
            output.note(f"{error}\nhint: {error.hint}")
