"""The table in SECURITY.md has one row for each attack test, from its last run, and no other."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from support import attack_table

TESTS = os.path.dirname(__file__)
HINT = "write the rows: .venv/bin/python -m pytest --attack-table tests/test_attack_....py"


@pytest.fixture(scope="module")
def collected():
    """The rows of the present tests, without results."""
    files = sorted(name for name in os.listdir(TESTS) if name.startswith("test_attack_"))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "attack", "--attack-list"]
    done = subprocess.run([*command, "-p", "no:xdist", *files], cwd=TESTS, stdout=subprocess.PIPE, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("["))
    return {tuple(row) for row in json.loads(line)}


def test_each_attack_has_a_row_and_each_row_an_attack(collected):
    tests = {(attempt, test) for attempt, _, _, test in collected}
    written = {(row.attempt, row.test) for row in attack_table.read()}
    assert written - tests == set(), "rows without a test"
    assert tests - written == set(), HINT


def test_no_row_claims_more_than_its_test_tries(collected):
    """A row has the modes and callers of the last run, which need not have been a run of all of them."""
    tried = {test: (set(modes.split(", ")), set(who.split(", "))) for _, modes, who, test in collected}
    for row in attack_table.read():
        modes, who = tried[row.test]
        assert set(row.modes.split(", ")) <= modes, row
        assert set(row.who.split(", ")) <= who, row


def test_no_attempt_got_through():
    assert [row for row in attack_table.read() if attack_table.ESCAPED in row.result] == []


def test_attempts_differ(collected):
    assert [text for text, count in Counter(row[0] for row in collected).items() if count > 1] == []


def test_attack_tests_are_in_files_of_that_name():
    mark = "pytest.mark." + "attack("
    for name in os.listdir(TESTS):
        if name.startswith("test_") and not name.startswith("test_attack_"):
            with open(os.path.join(TESTS, name), encoding="utf-8") as file:
                assert mark not in file.read(), name


def test_results_are_written_for_the_tests_that_ran(pytester_page):
    page, run = pytester_page
    run()
    rows = {row.test: row for row in attack_table.read(page)}
    assert rows["`test_attack_demo.py::test_door`"][:4] == ("opens a door", "container, vm", "root", "held")
    assert rows["`test_attack_demo.py::test_pipe`"].attempt == r"a \| b"
    assert rows["`test_attack_demo.py::test_out`"].result == attack_table.ESCAPED
    assert rows["`test_attack_demo.py::test_mixed`"].result == "not tried: why (container, any); held (vm, any)"
    assert rows["`test_attack_other.py::test_kept`"].result == "held"  # its file was not collected
    assert "`test_attack_demo.py::test_gone`" not in rows
    before = page.read_text()
    run("-k", "door")
    assert page.read_text() == before  # the others are still in the file


DEMO = """
import pytest

@pytest.mark.attack("opens a door", who="root")
@pytest.mark.parametrize("mode", ["vm", "container"])
def test_door(mode): pass

@pytest.mark.attack("a | b")
def test_pipe(): pass

@pytest.mark.attack("gets out")
def test_out(): assert 0

@pytest.mark.attack("is mixed")
@pytest.mark.parametrize("mode", ["container", "vm"])
def test_mixed(mode):
    if mode == "container":
        pytest.skip("why")
"""


MARKS = """
import pytest
from support.attack_table import callers, modes

@pytest.fixture(scope="module", params=["container", "vm", "host"])
def mode(request):
    return request.param

@pytest.fixture(scope="module", params=["root", "user"])
def who(request):
    return request.param

@pytest.fixture(scope="module")
def cell(mode, who):
    return mode, who

def test_all(cell, mode, who):
    assert cell == (mode, who)

@callers("user")
@modes("host", "vm")
def test_some(cell, mode, who):
    assert cell == (mode, who)
    assert who == "user" and mode != "container"
"""


def test_an_instance_of_a_test_has_the_mode_and_the_caller_of_the_test(tmp_path):
    (tmp_path / "test_marks.py").write_text(MARKS)
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['support.attack_table']\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "test_marks.py"]
    environment = {**os.environ, "PYTHONPATH": TESTS, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert re.search(r"^8 passed", done.stdout, re.MULTILINE), done.stdout


@pytest.fixture
def pytester_page(tmp_path):
    """A page with rows of an earlier run, and a function that runs the demonstration and writes to it."""
    (tmp_path / "test_attack_demo.py").write_text(DEMO)
    page = tmp_path / "SECURITY.md"
    old = [
        ("old", "vm", "root", "held", f"`test_attack_{name}`") for name in ("demo.py::test_gone", "other.py::test_kept")
    ]
    lines = [attack_table.Row(*row).line() for row in old]
    page.write_text("\n".join(["# Title", attack_table.BEGIN, *attack_table.HEAD, *lines, attack_table.END, "after\n"]))
    (tmp_path / "test_attack_other.py").write_text("def test_kept(): pass\n")
    script = (
        f"from support import attack_table; attack_table.PAGE = {str(page)!r}; attack_table.HERE = {str(tmp_path)!r}"
    )
    (tmp_path / "conftest.py").write_text(f"{script}\npytest_plugins = ['support.attack_table']\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = attack\n")

    def run(*words):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--attack-table", *words]
        environment = {**os.environ, "PYTHONPATH": TESTS}
        subprocess.run([*command, "test_attack_demo.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)

    return page, run
