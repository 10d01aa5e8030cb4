"""vmctl compare."""

from __future__ import annotations

import argparse
import os
import textwrap

from vmctl import backends
from vmctl.cli import modes, output, tables
from vmctl.cli.run import separated
from vmctl.cli.usual import REST
from vmctl.comparing import rows, running
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    pass

EXAMPLE = "vmctl compare --modes container,vm tiny -- uname -a"
MODES = ",".join(running.MODES)
FORMS = ("table", "json", "md", "html")
_TITLE = 24  # columns of the first column
_NARROWEST = 12
_INDENT = 4 * " "


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", metavar="SPEC|IMAGE", help="workload file, or image, in which a shell then waits")
    parser.add_argument(
        "command", nargs=REST, metavar="-- CMD", help="command to run next to the workload in each mode"
    )
    parser.add_argument("--modes", default=MODES, metavar="M,...", help=f"modes to compare (default: {MODES})")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress, and no reasons in the table")
    parser.add_argument(
        "--format", choices=FORMS, default="table", help="table (the default), json, md (Markdown) or html (one page)"
    )
    modes.add_options(parser, sorted(backends.modes()))


def run(args: argparse.Namespace) -> int:
    """Start the workload in each mode, print what differs and what is the same, and remove it."""
    chosen = chosen_modes(args.modes)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if command == args.command and command and command[0].startswith("-") and not separated(command):
        raise SpecError(f"{command[0]} comes after {args.what}, so it would be the command", hint=EXAMPLE)
    asked = running.Asked(running.workload(args.what), chosen, modes.chosen(args, chosen), tuple(command))
    progress = output.Progress(quiet=args.quiet)
    try:
        found = rows.rows(running.compare(asked, progress))
    finally:
        progress.clear()
    if args.format == "table":
        _show(found, chosen, reasons=not args.quiet)
    elif args.format == "json":
        import json

        print(json.dumps([_document(row, chosen) for row in found], indent=2))
    else:
        from vmctl.comparing import page

        print(page.markdown(found, chosen) if args.format == "md" else page.html(found, chosen), end="")
    return 0


def chosen_modes(text: str) -> tuple[str, ...]:
    """Return the modes in a flag --modes. Raises SpecError."""
    return running.chosen(tuple(name.strip() for name in text.split(",")), f"--modes {text}")


def _document(row: rows.Row, chosen: tuple[str, ...]) -> dict[str, object]:
    fact = row.fact
    values = dict(zip(chosen, row.values, strict=True))
    return {
        "name": fact.name,
        "title": fact.title,
        "same": row.same,
        "values": values,
        "why": fact.why,
        "read": fact.read,
    }


def _show(found: list[rows.Row], chosen: tuple[str, ...], *, reasons: bool) -> None:
    from vmctl.cli import parser
    from vmctl.console import visible

    columns = parser.columns() if os.isatty(1) or "COLUMNS" in os.environ else 120
    width = max(_NARROWEST, (columns - _TITLE - 2 * len(chosen)) // len(chosen))
    for title in ("different", "the same"):
        shown = [row for row in found if row.same == (title == "the same")]
        if not shown:
            continue
        print("\n".join(_wrapped(title.upper(), list(chosen if title == "different" else ()), width)))
        for row in shown:
            texts = [visible(value) if value is not None else "-" for value in row.values]
            if row.same:
                print("\n".join(_wrapped(row.fact.title, texts[:1], columns - _TITLE - 2)))
                continue
            print("\n".join(_wrapped(row.fact.title, texts, width)))
            if reasons and (row is shown[-1] or shown[shown.index(row) + 1].fact.why != row.fact.why):
                reason = f"{row.fact.why}: {row.fact.read}"
                print(textwrap.fill(reason, columns, initial_indent=_INDENT, subsequent_indent=_INDENT))
        print()


def _wrapped(title: str, texts: list[str], width: int) -> list[str]:
    """Return the lines of a row whose cells are wrapped to a width; a word that is longer is broken."""
    cells = [textwrap.wrap(text, width) or [""] for text in texts]
    return tables.beside([[title], *cells], [_TITLE, *[width] * len(cells)])
