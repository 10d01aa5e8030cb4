"""matplotlib's SVG as part of a page: with the page's colours, selectable text, and unique identifiers."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from vmctl import paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN = 6.4  # narrow, so that its text is readable on a phone, which shows it at three quarters of its size
# Placeholders that matplotlib draws with. _COLOURS replaces them; style.css has a light and a dark value for each.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
MODES = ("#a10001", "#a20002", "#a30003", "#a40004", "#a50005", "#a60006")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":")  # distinguish lines that overlap, or are printed without colour
_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    PAPER: "var(--paper)",
    **{colour: f"var(--mode-{number + 1})" for number, colour in enumerate(MODES)},
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text can be selected, searched and enlarged
    "svg.hashsalt": "vmctl",  # the same result gives the same page
    "text.parse_math": False,  # a dollar sign in a name begins no formula
    "font.family": "sans-serif",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid.axis": "x",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 11,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "path.simplify": False,  # draw every sample
}


def colour(number: int) -> str:
    """Return the colour of the mode at a place in the plan."""
    return MODES[number % len(MODES)]


def marker(number: int) -> str:
    """Return the marker of the mode at a place in the plan."""
    return MARKERS[number % len(MARKERS)]


def dashes(number: int) -> str:
    """Return the line style of the mode at a place in the plan."""
    return DASHES[number % len(DASHES)]


def svg(name: str, title: str, height_in: float, draw: Callable[[Figure], None]) -> str:
    """Return the drawing of `draw` as an SVG element; every identifier in it begins with `name`.

    A screen reader reads only its title. The page has a text next to it.
    """
    with _matplotlib():
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with matplotlib.rc_context(_SETTINGS):
            figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
            FigureCanvasSVG(figure)
            figure.patch.set_visible(False)
            draw(figure)
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _for_page(file.getvalue(), name, escape(title))


@contextmanager
def _matplotlib() -> Iterator[None]:
    """Give matplotlib a folder for its list of fonts: without one it warns and looks for fonts each time."""
    if "MPLCONFIGDIR" in os.environ:
        yield
        return
    folder = os.path.join(paths.cache_root(), "matplotlib")
    try:
        os.makedirs(folder, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    with tempfile.TemporaryDirectory(prefix="vmctl-matplotlib-") as temporary:
        os.environ["MPLCONFIGDIR"] = folder if writable else temporary
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"]


def _for_page(text: str, name: str, title: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Numbers of an axis mean nothing when read aloud one by one. Chromium would read them although this is an image.
    text = text.replace('<g id="figure_1">', '<g id="figure_1" aria-hidden="true">')
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([^;\"]*?)px [^;\"]*", r"font-size: \1px", text)  # use the page's font in that size
    for drawn, shown in _COLOURS.items():
        text = text.replace(drawn, shown)
    opening = (
        f'<svg viewBox="{_viewed(text)}" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{title}</title>'
    )
    return opening + text[text.index(">") + 1 :].replace("xlink:href", "href")


def _viewed(text: str) -> str:
    return text.partition('viewBox="')[2].partition('"')[0]
