"""`--again`: what counts as a race, and what remains a failure."""

import os
import subprocess
import sys

import pytest

CONFTEST = 'pytest_plugins = ["support.again"]'
TESTS = """
import os, pytest

def once(name):
    if not os.path.exists(name):
        open(name, "w").close()
        raise AssertionError("the first time")

@pytest.mark.parametrize("number", range(2))
def test_race(number):
    once(f"race{number}")

def test_always():
    assert False
"""


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)

    def run(*words, text=None):
        if text is not None:
            (tmp_path / "test_some.py").write_text(text)
        command = [sys.executable, "-m", "pytest", "-p", "no:vmctl", "--rootdir", ".", *words]
        env = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), "PYTEST_ADDOPTS": ""}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False, env=env)

    return run


@pytest.mark.parametrize("parallel", [(), ("-n", "2")])
def test_what_passes_alone_passes_and_is_named(runs, parallel):
    result = runs("--again", "2", "-k", "race", *parallel)
    assert result.returncode == 0, result.stdout
    assert "AssertionError: the first time" in result.stdout
    assert result.stdout.index("2 failed") < result.stdout.index("2 passed") < result.stdout.index("passed alone")
    assert sorted(result.stdout.splitlines()[-2:]) == [f"  test_some.py::test_race[{number}]" for number in range(2)]


@pytest.mark.parametrize("words", [("--again", "1", "-k", "race"), ("--again", "3"), ("-k", "race")])
def test_more_failures_a_second_failure_and_no_option(runs, words):
    assert runs(*words).returncode == 1


def test_other_errors_are_not_tried_again(runs):
    result = runs("--again", "3", text="import nothing_of_that_name")
    assert result.returncode == 2
    assert "passed alone" not in result.stdout
