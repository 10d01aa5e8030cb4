"""Tables for people. In a pipe or a file a row is one line; on a terminal a table fits its width, and nothing is cut.

What does not fit is left out by columns that matter least, then wrapped at spaces and behind slashes, and at last shown
as one block for each row. A name, an address or a port is in one piece, so that it can be copied.
"""

from __future__ import annotations

import os
import sys

from vmctl.console import visible
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_GAP = "  "


def show(titles: Sequence[str], rows: Sequence[Sequence[str]], less: Sequence[str] = ()) -> None:
    """Print a table; columns with the titles in `less` are left out on a narrow terminal, the first one first."""
    rows = [[visible(text).replace("\n", " ") for text in row] for row in rows]
    if not sys.stdout.isatty():
        for line in _lines([list(titles), *rows], _widths([titles, *rows])):
            print(line)
        return
    from vmctl.cli.parser import columns

    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    for line in fitted(titles, rows, columns(), less, _unchanged if plain else _bold):
        print(line)


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m"  # SGR of ECMA-48


def _unchanged(text: str) -> str:
    return text


def fitted(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    less: Sequence[str] = (),
    head: Callable[[str], str] = _unchanged,
) -> list[str]:
    """Return the lines of a table for a terminal of `width` columns; those of titles pass through `head`."""
    for count in range(len(less) + 1):
        kept = [number for number, title in enumerate(titles) if title not in less[:count]]
        cells = [[row[number] for number in kept] for row in (titles, *rows)]
        if _total(_widths(cells)) <= width:
            first, *lines = _lines(cells, _widths(cells))
            return [head(first), *lines]
    least = [
        max(_length(part.lstrip()) for cell in column for part in _parts(cell)) for column in zip(*cells, strict=True)
    ]
    if _total(least) <= width:
        widths = _shared(least, _widths(cells), width)
        title, *others = [_wrapped(row, widths) for row in cells]
        return [*map(head, title), *(line for lines in others for line in lines)]
    return list(_blocks(titles, rows, head))


def _length(text: str) -> int:
    """Return the number of columns of a text: some characters take two, those that are combined with others none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_length, column)) for column in zip(*rows, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _lines(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for row in rows:
        yield _GAP.join(text + " " * (width - _length(text)) for text, width in zip(row, widths, strict=True)).rstrip()


def _shared(least: Sequence[int], wanted: Sequence[int], width: int) -> list[int]:
    """Return the widths of columns: the spare ones go to the columns that are still too narrow, one by one."""
    widths, spare = list(least), width - _total(least)
    while spare:
        narrow = [number for number, wide in enumerate(wanted) if widths[number] < wide]
        if not narrow:
            break
        widths[min(narrow, key=widths.__getitem__)] += 1
        spare -= 1
    return widths


def _parts(text: str) -> list[str]:
    """Return the parts of a text that stay in one piece, each with the spaces before it."""
    import re  # takes 6 ms, and most tables fit

    return re.findall(r" *[^ /]*/?", text)[:-1] or [""]  # the last one found is the empty end


def _wrapped(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return beside([_wrap(text, width) for text, width in zip(row, widths, strict=True)], widths)


def beside(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Return the lines of a row, each with a text for every column; the cells have been wrapped to these widths."""
    height = max(map(len, cells))
    rows = [[cell[number] if number < len(cell) else "" for cell in cells] for number in range(height)]
    return list(_lines(rows, widths))


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for part in _parts(text):
        if _length(lines[-1] + part) <= width:
            lines[-1] += part
        else:
            lines.append(part.lstrip(" "))
    return lines


def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]], head: Callable[[str], str]) -> Iterator[str]:
    """Yield a line for each value, and an empty one between rows."""
    wide = max(map(_length, titles))
    for number, row in enumerate(rows):
        if number:
            yield ""
        for title, text in zip(titles, row, strict=True):
            yield f"{head(title)}{' ' * (wide - _length(title))}{_GAP}{text}"
