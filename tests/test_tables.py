"""Tables on terminals of any width: nothing is cut, and what can be copied is in one piece."""

import pytest

from vmctl.cli import tables

TITLES = ["NAME", "STATUS", "PORTS", "READY"]
ROWS = [
    ["web", "running", "127.0.0.1:8080->8000/tcp, 127.0.0.1:8443->443/tcp", "9.7 ms"],
    ["a-name-of-some-length", "exited (143)", "-", "2.70 s"],
]


@pytest.mark.parametrize("width", [1, 10, 24, 40, 60, 80, 120])
def test_no_value_is_cut(width):
    lines = tables.fitted(TITLES, ROWS, width)
    text = "\n".join(lines)
    for row in ROWS:
        for value in row:
            for part in value.replace("/", "/ ").split():
                assert part in text
    assert max(map(len, lines)) <= width or lines[0] == "NAME    web"  # too narrow for columns: a block per row


def test_columns_that_matter_less_go_first():
    assert tables.fitted(TITLES, ROWS, 120, ["READY"])[0].split() == TITLES
    assert tables.fitted(TITLES, ROWS, 92, ["READY", "STATUS"])[0].split() == ["NAME", "STATUS", "PORTS"]
    assert tables.fitted(TITLES, ROWS, 80, ["READY", "STATUS"])[0].split() == ["NAME", "PORTS"]
    narrow = tables.fitted(TITLES, ROWS, 50, ["READY", "STATUS"])
    assert [line.split() for line in narrow[1:3]] == [["web", "127.0.0.1:8080->8000/tcp,"], ["127.0.0.1:8443->443/tcp"]]


def test_a_row_per_block_has_every_column():
    assert tables.fitted(TITLES, ROWS, 20, ["READY"]) == [
        "NAME    web",
        "STATUS  running",
        "PORTS   127.0.0.1:8080->8000/tcp, 127.0.0.1:8443->443/tcp",
        "READY   9.7 ms",
        "",
        "NAME    a-name-of-some-length",
        "STATUS  exited (143)",
        "PORTS   -",
        "READY   2.70 s",
    ]


def test_a_path_continues_after_a_slash():
    lines = tables.fitted(["FOUND", "BY"], [["/usr/lib/python3/libvirt.py a / b", "vm"]], 24)
    assert lines == ["FOUND                 BY", "/usr/lib/python3/     vm", "libvirt.py a / b"]


def test_wide_characters_take_two_columns(capsys):
    tables.show(["COMMAND", "PID"], [["東京", "1"], ["e\u0301", "2"]])
    assert capsys.readouterr().out.splitlines() == ["COMMAND  PID", "東京     1", "e\u0301        2"]


def test_a_row_is_one_line_in_a_pipe(capsys):
    tables.show(["COMMAND", "PID"], [["sh -c 'a\nb'\x1b[2J", "1"]])
    assert capsys.readouterr().out.splitlines() == ["COMMAND             PID", "sh -c 'a b'\\x1b[2J  1"]


def test_an_empty_table_has_its_titles():
    assert tables.fitted(TITLES, [], 80) == ["NAME  STATUS  PORTS  READY"]
