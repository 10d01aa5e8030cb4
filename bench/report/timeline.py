"""Recorded starts as a picture and as a page: the phases of each below one another, all on one scale.

The picture is SVG with the colours of style.css, so it follows the page in the light, in the dark and on paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from bench.report import html
from vmctl.console import visible
from vmctl.spec.units import format_seconds
from vmctl.timelines import Bar, Recorded

_WIDTH, _LEFT, _RIGHT = 720, 190, 16  # of the picture, and what is left of the bars and right of them
_LINE, _BAR, _THINNEST = 22, 12, 1.5
_COLOURS = 6  # of style.css


class _Scale(NamedTuple):
    begin_s: float
    end_s: float

    def x(self, at_s: float) -> float:
        """Return the place of a moment."""
        share = (at_s - self.begin_s) / max(1e-9, self.end_s - self.begin_s)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def picture(starts: Sequence[Recorded]) -> str:
    """Return the starts as an SVG element; "" without any phase."""
    bars = [bar for start in starts for bar in start.bars]
    if not bars:
        return ""
    scale = _Scale(min(0.0, *(bar.begin_s for bar in bars)), max(bar.end_s for bar in bars))
    parts, y = [], _LINE
    for number, start in enumerate(starts):
        parts.append(_text(0, y, start.heading(), "font-weight:600"))
        for bar in start.bars:
            y += _LINE
            parts += _drawn(bar, y, f"var(--mode-{number % _COLOURS + 1})", scale)
        y += _LINE * 3 // 2
    parts += _axis(scale, y - _LINE // 2)
    label = f"Timeline of {', '.join(start.name for start in starts)}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + _LINE // 2}" role="img" '
    head += f'aria-label="{_escaped(label)}" font-family="inherit" font-size="13" fill="currentColor">\n'
    return head + "\n".join(parts) + "\n</svg>\n"


def _drawn(bar: Bar, y: int, colour: str, scale: _Scale) -> Iterator[str]:
    """Yield title and bar of a phase; one of the preparation is paler."""
    yield _text(8, y, bar.title)
    yield _text(_LEFT - 10, y, format_seconds(bar.took_s), "text-anchor:end;font-variant-numeric:tabular-nums")
    x, end = scale.x(bar.begin_s), scale.x(bar.end_s)
    style = f"fill:{colour};fill-opacity:{0.45 if bar.preparation else 1}"
    title = f"{bar.title}, {format_seconds(bar.took_s)}: {bar.why}"
    yield (
        f'<rect x="{x:.2f}" y="{y - _BAR + 1}" width="{max(_THINNEST, end - x):.2f}" height="{_BAR}" style="{style}">'
        f"<title>{_escaped(title)}</title></rect>"
    )


def _axis(scale: _Scale, y: int) -> Iterator[str]:
    """Yield the line where the starts begin, and the scale."""
    zero = scale.x(0.0)
    line = 'stroke="currentColor" stroke-width="1"'
    yield f'<path d="M{_LEFT} {y - 12}H{_WIDTH - _RIGHT}M{zero:.2f} {y - 12}v-5" {line} fill="none"/>'
    yield _text(zero, y + 4, "0", "text-anchor:middle")
    yield _text(_WIDTH - _RIGHT, y + 4, format_seconds(scale.end_s), "text-anchor:end")


def _text(x: float, y: int, text: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y}" style="{style}">{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    return escape(visible(text))


def page(starts: Sequence[Recorded]) -> str:
    """Return one page with the picture and its numbers, without anything from outside."""
    title = visible(f"Timeline of {', '.join(start.name for start in starts)}")
    tables = "".join(map(_table, starts))
    return html.rendered("timeline.html.j2", title=title, picture=picture(starts), tables=tables)


def _table(start: Recorded) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_escaped(bar.title)}</th><td>{bar.begin_s - start.zero_s:+.4f} s</td>'
        f"<td>{format_seconds(bar.took_s)}</td><td>{_escaped(bar.why)}</td></tr>\n"
        for bar in start.bars
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("phase", "begins", "takes", "why"))
    caption = f"<caption>{_escaped(start.heading())}</caption>"
    return f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n'
