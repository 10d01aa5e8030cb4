#!/usr/bin/env python3
"""Record real commands on a pseudo-terminal and draw them as an SVG that plays once and stays on the last screen.

`make picture` runs the commands below as root and writes docs/demo.svg. It needs curl, ports 8080 and 8081, and
the names web and web2.
"""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from xml.sax.saxutils import escape

COLUMNS = 100
COMMANDS = (
    "vmctl up web.yaml",
    "sed s/8080/8081/ web.yaml >web2.yaml",
    "vmctl up --mode vm --accel tcg web2.yaml",
    "vmctl ps",
    "curl -s 127.0.0.1:8080 127.0.0.1:8081",
    "vmctl exec web -- uname -r; vmctl exec web2 -- uname -r",
    "vmctl down web web2",
    "vmctl bench web.yaml --quick --runs 3 2>/dev/null | head -6",
)
WORD_S, PAUSE_S, LONGEST_WAIT_S, REDRAW_S = 0.12, 0.9, 1.2, 0.25  # of the picture, not of the commands
CELL_X, CELL_Y, MARGIN = 8.4, 19, 18

STYLE = """
.page { fill: #f6f8fa; stroke: #d0d7de } .past { visibility: hidden } .bold, .prompt { font-weight: 700 }
text { fill: #24292f; white-space: pre; font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
"Liberation Mono", monospace } .prompt, .c2 { fill: #1a7f37 } .faint { fill: #6e7781 } .c1 { fill: #cf222e }
.c3 { fill: #9a6700 } .c4 { fill: #0969da } .c5 { fill: #8250df } .c6 { fill: #1b7c83 }
@media (prefers-color-scheme: dark) { .page { fill: #161b22; stroke: #30363d } text { fill: #e6edf3 }
.prompt, .c2 { fill: #3fb950 } .faint { fill: #8b949e } .c1 { fill: #ff7b72 } .c3 { fill: #d29922 }
.c4 { fill: #58a6ff } .c5 { fill: #bc8cff } .c6 { fill: #39c5cf } }
@media (prefers-reduced-motion: reduce) { text { animation: none !important } }
"""

Cell = tuple[str, str]  # a character and its classes
Row = tuple[Cell, ...]


class Screen:
    """A terminal of a fixed width and any height: text, line ends, colours, and erasing to the end of a line."""

    def __init__(self, columns: int = COLUMNS) -> None:
        self.columns = columns
        self.rows: list[list[Cell]] = [[]]
        self.column = 0
        self.style = ""

    def feed(self, text: str) -> None:
        """Show the output of a program."""
        for match in re.finditer(r"\x1b\[([0-9;?]*)([A-Za-z])|(\x1b.)|(.)", text, re.DOTALL):
            if match[2]:
                self._control(match[1], match[2])
            elif match[4]:
                self._character(match[4])

    def _character(self, character: str) -> None:
        if character == "\n":
            self.rows.append([])
            self.column = 0
        elif character == "\r":
            self.column = 0
        elif character >= " ":
            if self.column == self.columns:
                self._character("\n")
            row = self.rows[-1]
            row.extend([(" ", "")] * (self.column - len(row)))
            row[self.column : self.column + 1] = [(character, self.style)]
            self.column += 1

    def _control(self, numbers: str, name: str) -> None:
        if name == "K":
            del self.rows[-1][0 if numbers == "2" else self.column :]
        elif name == "m":
            for number in map(int, filter(None, (numbers or "0").split(";"))):
                self.style = _style(number, self.style)


def _style(number: int, before: str) -> str:
    """Return the classes after one number of a colour sequence."""
    if number in (0, 22, 39):
        return ""
    if number in (1, 2):
        return f"{before} {'bold' if number == 1 else 'faint'}".strip()
    return f"{before} c{number % 10}".strip() if 31 <= number <= 36 or 91 <= number <= 96 else before


class Shown(NamedTuple):
    """A row of the screen with the time span in which it is seen; `until_s` is None if it stays."""

    number: int
    row: Row
    from_s: float
    until_s: float | None


class Recorder:
    """The screen over time, in seconds of the picture."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.now_s = 0.0
        self.shown: list[Shown] = []
        self._seen: dict[int, tuple[Row, float]] = {}

    def look(self) -> None:
        """Record each row that has changed."""
        for number, cells in enumerate(self.screen.rows):
            row = tuple(cells)
            before, from_s = self._seen.get(number, ((), self.now_s))
            if row != before:
                if before and from_s < self.now_s:
                    self.shown.append(Shown(number, before, from_s, self.now_s))
                self._seen[number] = (row, self.now_s)

    def end(self) -> list[Shown]:
        """Return all rows, also those that stay."""
        self.look()
        return [*self.shown, *(Shown(number, row, from_s, None) for number, (row, from_s) in self._seen.items() if row)]

    def type(self, command: str) -> None:
        """Show a command word by word, as somebody types it."""
        self.screen.style = "prompt"
        self.screen.feed("$ ")
        self.screen.style = "bold"
        for word in re.findall(r"\S+\s*", command):
            self.screen.feed(word)
            self.look()
            self.now_s += WORD_S
        self.screen.style = ""
        self.screen.feed("\r\n")

    def run(self, command: str, folder: str) -> None:
        """Run a command and record what it shows; long waits are shortened."""
        last_look_s = self.now_s
        for text, waited_s in output(command, folder):
            if waited_s >= REDRAW_S:
                self.look()  # at what has been on the screen since then
            self.now_s += min(waited_s, LONGEST_WAIT_S)
            self.screen.feed(text)
            if self.now_s - last_look_s >= REDRAW_S:
                self.look()
                last_look_s = self.now_s
        self.look()
        self.now_s += PAUSE_S


def output(command: str, folder: str) -> Iterator[tuple[str, float]]:
    """Yield what a command writes to a terminal, each with the seconds since the one before.

    Raises CalledProcessError if the command fails: a picture of that is not wanted.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, COLUMNS))
    with subprocess.Popen(["bash", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder) as shell:
        os.close(theirs)
        before_s = time.monotonic()
        while select.select([ours], [], [])[0]:
            try:
                text = os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the last program has closed the terminal
                break
            now_s = time.monotonic()
            yield text, now_s - before_s
            before_s = now_s
    os.close(ours)
    if shell.returncode:
        raise subprocess.CalledProcessError(shell.returncode, command)


def svg(shown: list[Shown], length_s: float) -> str:
    """Return the picture."""
    height = (max(one.number for one in shown) + 1) * CELL_Y + 2 * MARGIN
    width = round(COLUMNS * CELL_X + 2 * MARGIN)
    spans = sorted({(one.from_s, one.until_s or 0.0) for one in shown})
    names = {span: f"k{number}" for number, span in enumerate(spans)}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<title>One workload file as a container and as a virtual machine, and what each costs</title>",
        f"<style>{STYLE}{''.join(_keyframes(span, name, length_s) for span, name in names.items())}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *(_line(one, names[one.from_s, one.until_s or 0.0]) for one in shown),
        "</svg>\n",
    ]
    return "\n".join(lines)


def _keyframes(span: tuple[float, float], name: str, length_s: float) -> str:
    """Return the animation of rows that are seen in one time span."""
    end = f"{span[1] / length_s:.2%}{{visibility:hidden}}" if span[1] else ""
    frames = f"0%{{visibility:hidden}}{span[0] / length_s:.2%}{{visibility:visible}}{end}"
    return f"@keyframes {name}{{{frames}}}.{name}{{animation:{name} {length_s:.1f}s step-end}}\n"


def _line(one: Shown, name: str) -> str:
    y = MARGIN + one.number * CELL_Y + 14
    past = " past" if one.until_s else ""
    text = "".join(_spans(one.row))
    wide = f"{len(one.row) * CELL_X:.1f}"
    return f'<text class="{name}{past}" x="{MARGIN}" y="{y}" textLength="{wide}" xml:space="preserve">{text}</text>'


def _spans(row: Row) -> Iterator[str]:
    """Yield the parts of a row that have the same style."""
    start = 0
    for end in range(1, len(row) + 1):
        if end == len(row) or row[end][1] != row[start][1]:
            text, style = escape("".join(character for character, _ in row[start:end])), row[start][1]
            yield f'<tspan class="{style}">{text}</tspan>' if style else text
            start = end


def record(commands: tuple[str, ...], folder: str, progress: Callable[[str], object]) -> str:
    """Run the commands in a folder and return the picture."""
    recorder = Recorder()
    for command in commands:
        progress(command)
        recorder.type(command)
        recorder.run(command, folder)
    recorder.now_s += PAUSE_S
    return svg(recorder.end(), recorder.now_s)


def main() -> None:
    """Write the picture."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    os.environ["PATH"] = f"{root}/.venv/bin:{os.environ['PATH']}"
    os.environ["TERM"] = "xterm-256color"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(f"{root}/configs/workloads/web.yaml", folder)
        picture = record(COMMANDS, folder, lambda command: print(f"$ {command}", file=sys.stderr))
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
