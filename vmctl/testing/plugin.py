"""The hooks of the pytest plugin: options, modes as parameters, what a failed test is reported with, the end.

pytest loads this in each project, and calls these hooks for each test. So they return at once for a test without an
instance, and what does the work is imported when there is one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from vmctl.testing.description import MARKER
from vmctl.testing.fixtures import FAILED, MODE, USED, vmctl_instance, vmctl_mode  # noqa: F401  fixtures
from vmctl.testing.state import RUN, STATE, State

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("vmctl", "instances of vmctl")
    group.addoption(
        "--vmctl-mode",
        metavar="MODES",
        default="",
        help="container, vm or host, or several with commas: each test with an instance runs once in each of them, "
        "and the end lists tests whose outcomes differ; in place of the modes of markers",
    )
    group.addoption(
        "--vmctl-keep",
        action="store_true",
        help="keep the instance of a failed test; its report names how to enter it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and read the options. Raises pytest.UsageError for an unknown mode."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(image, mode=None, prepare=None, **keys of a workload file): the instance of a test, a clone of one "
        "that was started and prepared once in the session",
    )
    config.stash[STATE] = State(config)
    config.pluginmanager.register(config.stash[STATE], "vmctl state")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of pytest-xdist the name of the session."""
    node.workerinput[RUN] = node.config.stash[STATE].run


@pytest.hookimpl(trylast=True)  # so that the mode comes last in the id of a test
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that has an instance in each mode of --vmctl-mode."""
    modes = metafunc.config.stash[STATE].modes
    if modes and MODE in metafunc.fixturenames:
        metafunc.parametrize(MODE, modes, indirect=True, ids=str)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add logs, console and changed files of the instances of a failed test to its report."""
    report = yield
    used = item.stash.get(USED, [])
    if report.failed and report.when != "teardown" and used:
        from vmctl.testing import evidence

        item.stash[FAILED] = True
        report.sections += evidence.sections(used, keep=item.config.stash[STATE].keep)
    return report


@pytest.hookimpl(trylast=True)  # after the workers of pytest-xdist have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove snapshots, and fail the session if a test has left instances."""
    state = session.config.stash[STATE]
    state.end()
    if state.left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """List what differs between modes, what is kept, and what was left behind."""
    config.stash[STATE].show(terminalreporter)
