"""Keep the table of attacks in SECURITY.md: one row per test that is marked `attack`, from the results of real runs.

A test is marked `@pytest.mark.attack("what the attacker tries")`. Its row has the modes and callers for which it ran:
the parameters `mode` and `who`, or the same keywords of the mark for a test that has no such parameter. With
`--attack-table` the rows of the tests that ran are written; a row whose test exists no longer is removed.
"""

import json
import os
import sys
from collections import defaultdict
from typing import NamedTuple

import pytest

HERE = os.path.join(os.path.dirname(__file__), "..")
PAGE = os.path.join(HERE, "..", "SECURITY.md")
BEGIN, END = "<!-- attacks: begin -->", "<!-- attacks: end -->"
HEAD = ("| what was tried | modes | as | result | test |", "|---|---|---|---|---|")
MODES = ("container", "vm", "host")
ANY = "any"  # what the attempt does not depend on
HELD, ESCAPED = "held", "**got through**"


class Case(NamedTuple):
    """One run of an attack test."""

    file: str
    test: str
    attempt: str
    mode: str
    who: str
    result: str = ""


class Row(NamedTuple):
    """One row of the table, as it is printed."""

    attempt: str
    modes: str
    who: str
    result: str
    test: str

    def line(self):
        return f"| {' | '.join(self)} |"


def pytest_addoption(parser):
    group = parser.getgroup("attacks")
    group.addoption("--attack-table", action="store_true", help="write the rows of the tests that ran to SECURITY.md")
    group.addoption("--attack-list", action="store_true", help="with --collect-only: print the rows as JSON, unrun")


def pytest_configure(config):
    config.addinivalue_line("markers", "modes(name, ...): run it in these modes only (attack_table.py)")
    config.addinivalue_line("markers", "callers(name, ...): run it for these callers only (attack_table.py)")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Table(config), "attack-table")


def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=[item for item in items if not _is_chosen(item)])
    items[:] = filter(_is_chosen, items)


def pytest_itemcollected(item):
    if item.get_closest_marker("attack"):
        item.user_properties.append(("attack", list(case_of(item))))


def case_of(item):
    """Return what an item with the mark tries."""
    marker = item.get_closest_marker("attack")
    params = item.callspec.params if hasattr(item, "callspec") else {}
    chosen = {key: params.get(key) or marker.kwargs.get(key, ANY) for key in ("mode", "who")}
    file = os.path.basename(item.path)
    return Case(file, item.originalname, marker.args[0], str(chosen["mode"]), str(chosen["who"]))


class _Table:
    """Collects the results in the process that reports them, also if workers of pytest-xdist run the tests."""

    def __init__(self, config):
        self.config = config
        self.cases = []

    def pytest_collection_finish(self, session):
        if self.config.getoption("attack_list"):
            cases = [Case(*dict(item.user_properties)["attack"]) for item in session.items if item.user_properties]
            json.dump([row[:3] + row[4:] for row in rows(cases)], sys.stdout)

    def pytest_runtest_logreport(self, report):
        attack = dict(report.user_properties).get("attack")
        if attack and (report.when == "call" or not report.passed):
            self.cases.append(Case(*attack)._replace(result=_result(report)))

    def pytest_sessionfinish(self):
        if self.config.getoption("attack_table") and self.cases:
            write(rows(self.cases))


def _result(report):
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return f"not tried: {reason.removeprefix('Skipped: ')}"
    return HELD if report.passed else ESCAPED


def rows(cases):
    """Return one row per test, sorted by its name."""
    tests = defaultdict(list)
    for case in cases:
        tests[case.file, case.test].append(case)
    return [_row(found) for _, found in sorted(tests.items())]


def _row(cases):
    results = {case.result for case in cases}
    if len(results) == 1:
        result = results.pop()
    else:
        result = "; ".join(dict.fromkeys(f"{case.result} ({case.mode}, {case.who})" for case in cases))
    modes = sorted({case.mode for case in cases}, key=lambda mode: (MODES.index(mode) if mode in MODES else 9, mode))
    callers = ", ".join(sorted({case.who for case in cases}))
    first = cases[0]
    escaped = [text.replace("|", "\\|").replace("\n", " ") for text in (first.attempt, result)]
    return Row(escaped[0], ", ".join(modes), callers, escaped[1], f"`{first.file}::{first.test}`")


def read(page=None):
    """Return the rows of the page."""
    with open(page or PAGE, encoding="utf-8") as file:
        lines = file.read().split(BEGIN)[1].split(END)[0].strip().splitlines()
    cells = (line.strip("| \n").replace("\\|", "\0").split(" | ") for line in lines[len(HEAD) :])
    return [Row(*(cell.replace("\0", "\\|") for cell in row)) for row in cells]


def write(new):
    """Replace the rows of the tests that ran, and remove those whose test exists no longer."""
    ran = {row.test for row in new}
    kept = [row for row in read() if row.test not in ran and _exists(row)]
    lines = [row.line() for row in sorted([*kept, *new], key=lambda row: row.test)]
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write("\n".join([before + BEGIN, *HEAD, *lines, END]) + after)


def _exists(row):
    """Return whether the row's test is still in its file: it may not have been selected."""
    file, name = row.test.strip("`").split("::")
    path = os.path.join(HERE, file)
    if not os.path.exists(path):
        return False
    with open(path, encoding="utf-8") as file:
        return f"def {name}(" in file.read()


def callers(*names):
    """Return the mark that runs a test for these callers only."""
    return pytest.mark.callers(*names)


def modes(*names):
    """Return the mark that runs a test in these modes instead of in those that isolate.

    It is not a `parametrize`: that would hide the fixture `mode` from the test, but not from an instance that another
    test has started in its own mode, which pytest would then give to this test, too.
    """
    return pytest.mark.modes(*names)


def _is_chosen(item):
    """Return whether a test is for its mode and its caller."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    isolating = () if _has_own_modes(item) else ("container", "vm")
    for key, name, usual in (("mode", "modes", isolating), ("who", "callers", ())):
        mark = item.get_closest_marker(name)
        chosen = mark.args if mark else usual
        if chosen and params.get(key, chosen[0]) not in chosen:
            return False
    return True


def _has_own_modes(item):
    return hasattr(item.module, "mode") or any("mode" in mark.args[0] for mark in item.iter_markers("parametrize"))
