"""The picture in README.md: what a terminal shows, when it shows it, and the SVG of it."""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from support.tracked import ROOT

LOADED = importlib.util.spec_from_file_location("picture", os.path.join(ROOT, "docs", "picture.py"))
picture = sys.modules["picture"] = importlib.util.module_from_spec(LOADED)
LOADED.loader.exec_module(picture)
SVG = "{http://www.w3.org/2000/svg}"


def screen(text, columns=20):
    shown = picture.Screen(columns)
    shown.feed(text)
    return ["".join(character for character, _ in row) for row in shown.rows]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("one\r\ntwo", ["one", "two"]),
        ("longer\rshort", ["shortr"]),
        ("progress\r\x1b[Kdone\r\n", ["done", ""]),
        ("progress\x1b[2K\rx", ["x"]),
        ("a\x1b[?25lb\x1b[1;32mc\x1b[0m", ["abc"]),
        ("x" * 25, ["x" * 20, "x" * 5]),
        ("x\a\x1b7y", ["xy"]),
    ],
)
def test_screen(text, rows):
    assert screen(text) == rows


def test_colours_become_classes():
    shown = picture.Screen()
    shown.feed("a\x1b[1mb\x1b[31mc\x1b[0md\x1b[92me")
    assert [style for _, style in shown.rows[0]] == ["", "bold", "bold c1", "", "c2"]


def drawn(*commands, folder="/"):
    text = picture.record(commands, str(folder), lambda _: None)
    return text, ElementTree.fromstring(text)


def rows(root, *, last):
    """Return the texts that the picture ends with, or those that were seen only in between."""
    texts = [text for text in root.iter(f"{SVG}text") if ("past" in text.get("class")) is not last]
    return ["".join(text.itertext()) for text in texts]


def test_a_recording_of_real_commands(tmp_path):
    text, root = drawn("printf 'first\\rsec<nd>\\n' && pwd", "stty size; test -t 1 && echo a terminal", folder=tmp_path)
    assert rows(root, last=True) == [
        "$ printf 'first\\rsec<nd>\\n' && pwd",
        "sec<nd>",
        str(tmp_path),
        "$ stty size; test -t 1 && echo a terminal",
        f"50 {picture.COLUMNS}",
        "a terminal",
    ]
    assert "$ printf " in rows(root, last=False)  # a command appears word by word
    assert not re.search(r"(?:href|src|url\(|@import)", text)


def test_rows_appear_in_their_order_and_each_has_its_animation():
    text, root = drawn("echo one; sleep 0.5; echo two")
    starts = dict(re.findall(r"@keyframes (k\d+){0%{visibility:hidden}([\d.]+)%", text))
    moments = {
        "".join(line.itertext()): float(starts[line.get("class").split()[0]])
        for line in root.iter(f"{SVG}text")
        if "past" not in line.get("class")
    }
    assert 0 <= moments["$ echo one; sleep 0.5; echo two"] < moments["one"] < moments["two"] < 100


def test_a_command_that_fails_makes_no_picture():
    with pytest.raises(subprocess.CalledProcessError, match="'exit 3'"):
        drawn("exit 3")


def test_a_long_wait_is_shortened():
    recorder = picture.Recorder()
    recorder.run("echo a; sleep 3; echo b", "/")
    assert recorder.now_s < 3


def test_the_committed_picture_is_small_and_shows_the_commands():
    path = os.path.join(ROOT, "docs", "demo.svg")
    assert os.path.getsize(path) < 100_000
    shown = rows(ElementTree.parse(path).getroot(), last=True)
    assert [row[2:] for row in shown if row.startswith("$ ")] == list(picture.COMMANDS)
    assert not [row for row in shown if "rror" in row or row.startswith(("vmctl: ", "hint: "))]
