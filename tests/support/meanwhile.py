"""Add to the report of a failed test which tests of other processes ran at the same time: they may have disturbed it.

Each process that runs tests, of any checkout, has a file with a line per test: when it began, and its name.
"""

import glob
import os
import time

import pytest

_FILES = "/run/lock/vmctl-tests-"
_KEY = pytest.StashKey[float]()


def _own():
    return f"{_FILES}{os.getpid()}"


def pytest_unconfigure():
    if os.path.exists(_own()):
        os.unlink(_own())


def pytest_runtest_protocol(item):
    item.stash[_KEY] = time.monotonic()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    with open(os.open(_own(), flags, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{item.stash[_KEY]} {os.path.basename(item.config.rootpath)}/{item.nodeid}\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed and (others := overlapping(item.stash[_KEY])):
        report.sections.append(("tests of other processes at the same time", "\n".join(others[-20:])))
    return report


def overlapping(since_s):
    """Return the tests of other processes that ended after this moment, or run still."""
    found = []
    for path in glob.glob(f"{_FILES}*"):
        if not os.path.exists(f"/proc/{path.removeprefix(_FILES)}"):  # it was killed
            os.unlink(path)
        elif path != _own():
            with open(path, encoding="utf-8") as file:
                lines = [line.rstrip("\n").split(" ", 1) for line in file]
            ends = [float(begin) for begin, _ in lines[1:]] + [time.monotonic()]
            found += [name for (_, name), end in zip(lines, ends, strict=True) if end >= since_s]
    return found
