"""With `--again N`: run the tests that have failed once more, alone and in order, if they are at most N.

A test that passes then has met a race that a busy machine shows once in hundreds of runs. The run passes and names it
at its end; the report of the failure is above, and the race is to be found. A test that fails twice, more failures
than that, and any other error are failures as without the option.
"""

import os
import subprocess
import sys

import pytest

_failed = {}  # in order, without twins: a test and its teardown can both fail


def pytest_addoption(parser):
    parser.addoption("--again", type=int, default=0, metavar="N", help="run at most N failed tests again, alone")


def pytest_configure():
    os.environ.pop("PYTEST_ADDOPTS", None)  # this option is not for the pytest that a test runs, nor for the second run


def pytest_runtest_logreport(report):
    if report.failed:
        _failed[report.nodeid] = None


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the summary, and the end of other processes with tests, come first
def pytest_sessionfinish(session, exitstatus):
    result = yield
    is_worker = hasattr(session.config, "workerinput")
    if (
        exitstatus == pytest.ExitCode.TESTS_FAILED
        and not is_worker
        and len(_failed) <= session.config.getoption("again")
    ):
        options = ("-p", "no:xdist", "-p", "no:cacheprovider", "--rootdir", str(session.config.rootpath))
        sys.stdout.flush()
        again = subprocess.run([sys.executable, "-m", "pytest", *options, *_failed], check=False)
        if again.returncode == 0:
            print("failed beside others and passed alone, each a race to be found:", *_failed, sep="\n  ")
            session.exitstatus = pytest.ExitCode.OK
    return result
