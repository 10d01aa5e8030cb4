"""A comparison as Markdown and as one page of HTML without anything from outside."""

from __future__ import annotations

import html as markup
from collections.abc import Sequence

from vmctl.comparing.rows import Row
from vmctl.console import visible

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 1rem auto; max-width: 75rem; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8886; overflow-wrap: anywhere; padding: .3rem .5rem; }
th, td { text-align: left; vertical-align: top; }
td { font-family: ui-monospace, monospace; font-size: .85rem; min-width: 6rem; }
td small { font-family: system-ui, sans-serif; }
"""


def markdown(found: Sequence[Row], modes: Sequence[str]) -> str:
    """Return the tables as Markdown: what differs, and what is the same."""
    lines = ["## What differs", "", *_table(found, ["", *modes, "why", "read on"], same=False)]
    return "\n".join([*lines, "", "## What is the same", "", *_table(found, ["", "in all modes"], same=True), ""])


def _table(found: Sequence[Row], titles: Sequence[str], *, same: bool) -> list[str]:
    rows = [_cells(row) for row in found if row.same == same]
    return [_line(titles), _line(["---"] * len(titles)), *map(_line, rows)]


def _cells(row: Row) -> list[str]:
    values = ["-" if value is None else visible(value) for value in row.values]
    return [row.fact.title, *values[:1]] if row.same else [row.fact.title, *values, row.fact.why, row.fact.read]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(markup.escape(cell, quote=False).replace('|', '&#124;') for cell in cells)} |"


def html(found: Sequence[Row], modes: Sequence[str]) -> str:
    """Return the page."""
    title = f"The same workload in the modes {', '.join(modes)}"
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{markup.escape(title)}</title>\n'
    head += f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n<h1>{_text(title)}</h1>\n'
    return head + fragment(found, modes)


def fragment(found: Sequence[Row], modes: Sequence[str]) -> str:
    """Return the two tables of the page, for a page of somebody else."""
    differ = [
        _row(row, f"<br><small>{_text(row.fact.why)}: {_text(row.fact.read)}</small>") for row in found if not row.same
    ]
    same = [_row(row._replace(values=row.values[:1]), "") for row in found if row.same]
    return _section("What differs", modes, differ) + _section("What is the same", ["in all modes"], same)


def _section(title: str, columns: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th>{_text(column)}" for column in columns)
    return f"<h2>{title}</h2>\n<div><table>\n<tr><th>{titles}\n{''.join(rows)}</table></div>\n"


def _row(row: Row, why: str) -> str:
    values = "".join(f"<td>{_text('-' if value is None else visible(value))}" for value in row.values)
    return f"<tr><th>{_text(row.fact.title)}{why}{values}\n"


def _text(text: str) -> str:
    return markup.escape(text)
