"""Output of data: tables for people, JSON for programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from vmctl.console import visible
from vmctl.instances.folder import removal_hint
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_age

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

    from vmctl.survey import Seen

    Row = dict[str, Any]


LINE_S = 10.0  # between two lines of progress, if standard error is not a terminal


FORMS = ("table", "json", "jsonl")


def add_format(parser: ArgumentParser) -> None:
    """Add --format."""
    parser.add_argument(
        "--format",
        type=form,
        default="table",
        metavar="FORMAT",
        help="table (the default), json, jsonl, or a template such as '{{.Name}}'",
    )


def add_format_of_documents(parser: ArgumentParser, example: str) -> None:
    """Add --format of a verb that prints details; `example` is a field."""
    parser.add_argument(
        "-f",
        "--format",
        type=form,
        default="json",
        metavar="FORMAT",
        help=f"json (the default), jsonl, or a template such as '{{{{.{example}}}}}', with the fields of docker too",
    )


def mode(name: str, accelerator: str | None, warm: str) -> str:
    """Return how an instance runs: its mode, and of a guest the accelerator, and whose memory it began with."""
    words = [word for word in (accelerator, warm and f"warm, from a {warm}") if word]
    return f"{name} ({', '.join(words)})" if words else name


def show_documents(documents: Sequence[Row], form: str, like_docker: Callable[[Row], Row] = dict) -> None:
    """Print details: as a JSON array, a line each, or by a template, which has the fields of `like_docker` too."""
    if form not in FORMS:
        documents = [{**like_docker(one), **one} for one in documents]
    show(documents, (), "json" if form == "table" else form)


def form(text: str) -> str:
    """Return a --format: one of FORMS, or a template. Raises argparse.ArgumentTypeError, SpecError for a template."""
    if "{{" in text:
        from vmctl.cli import template

        template.parse(text)
    elif text not in FORMS:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"invalid choice: {text!r} (choose from {', '.join(FORMS)}, or a template)")
    return text


def size(text: str) -> int:
    """Return the bytes of an argument such as 20G. Raises argparse.ArgumentTypeError."""
    from vmctl.spec.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise _wrong(error) from None


def seconds(text: str) -> float:
    """Return the seconds of an argument such as 10, 1.5 or 2m. Raises argparse.ArgumentTypeError."""
    return duration(f"{text}s" if text[-1:].isdigit() else text)


def duration(text: str) -> float:
    """Return the seconds of an argument such as 2m. Raises argparse.ArgumentTypeError."""
    from vmctl.spec.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise _wrong(error) from None


def _wrong(error: ValueError) -> Exception:
    from argparse import ArgumentTypeError

    return ArgumentTypeError(f"expected {error}")


def show(
    rows: Sequence[Row],
    columns: Sequence[str],
    form: str,
    cell: Callable[[str, Any], str] | None = None,
    less: Sequence[str] = (),
) -> None:
    """Print rows: as JSON with all keys and typed values, as a table of `columns` with the texts of `cell`, or by a
    template, see template.py. A table for a narrow terminal is without columns of `less`, see tables.py.
    """
    if form == "table":
        from vmctl.cli import tables

        texts = [[(cell or _cell)(name, row[name]) for name in columns] for row in rows]
        tables.show(list(map(_title, columns)), texts, list(map(_title, less)))
        return
    if form not in FORMS:
        _by_template(rows, form, cell or _cell)
        return
    import json

    if form == "json":
        print(json.dumps(list(rows), indent=2))
    else:
        for row in rows:
            print(json.dumps(row))


def _by_template(rows: Sequence[Row], form: str, cell: Callable[[str, Any], str]) -> None:
    from vmctl.cli import template

    read = template.parse(form)
    lines = [*([read.title()] if read.table else ()), *(read.render(row, cell) for row in rows)]
    if read.table:
        cells = [line.split("\t") for line in lines]
        widths = [max(len(one[number]) for one in cells if number < len(one)) for number in range(max(map(len, cells)))]
        lines = ["  ".join(map(str.ljust, one, widths)).rstrip() for one in cells]
    for line in lines:
        print(visible(line) if sys.stdout.isatty() else line)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of texts; flush stdout before and after, so that stdout and stderr keep their order."""
    from vmctl.cli import tables

    sys.stdout.flush()
    tables.show(list(map(_title, columns)), rows)
    sys.stdout.flush()


def _title(name: str) -> str:
    return name.removesuffix("_bytes").removesuffix("_s").replace("_percent", "_%").replace("_", " ").upper()


def _cell(_: str, value: Any) -> str:
    return "-" if value is None else str(value)


def age(created: str) -> str:
    """Return a time in RFC 3339 as a readable age such as '3 weeks ago', or '-' if it is not a time."""
    from datetime import datetime

    try:
        return since(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return "-"


def since(created_s: float) -> str:
    """Return a time in seconds since 1970 as a readable age."""
    return f"{format_age(max(0.0, time.time() - created_s))} ago"


def is_known(warning: str) -> bool:
    """Return whether a warning is about this user and not about the instance, and was shown to this user before."""
    from vmctl import limits, paths

    if warning != limits.UNLIMITED:
        return False
    path = os.path.join(paths.cache_root(), "shown-unlimited")
    if os.path.exists(path):
        return True
    with suppress(OSError):
        os.makedirs(paths.cache_root(), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return False


def note_unknown(found: Iterable[Seen]) -> None:
    """Print why instances have the status `unknown`, and how to remove them, to stderr."""
    from vmctl.survey import UNKNOWN

    for seen in found:
        if seen.status == UNKNOWN:
            note(f"{seen.reason}\nhint: {removal_hint(seen.name)}")


def note(text: str) -> None:
    """Print a line to stderr: it is not part of the data."""
    print(visible(text), file=sys.stderr)


class Progress:
    """A line on the terminal that is rewritten; in a pipe or a file a line every LINE_S seconds."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.shown = ""
        self.quiet, self.active = quiet, sys.stderr.isatty() and not quiet
        self.next_line_s = time.monotonic() + LINE_S

    def due(self) -> bool:
        """Return whether a text would be shown now."""
        return self.active or (not self.quiet and time.monotonic() >= self.next_line_s)

    def __call__(self, text: str) -> None:
        """Replace the line by `text`."""
        if not self.active:
            if text and self.due():
                self.next_line_s = time.monotonic() + LINE_S
                note(text.strip())
        elif text != self.shown:
            self.shown = text
            width = (os.get_terminal_size(2).columns or 80) - 1  # a terminal without a size reports 0
            sys.stderr.write(f"\r\x1b[2K{visible(text)[:width]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self.shown:
            sys.stderr.write("\r\x1b[2K")
            self.shown = ""
