"""What one process of pytest keeps for a session: the options, the name of the session, the outcomes, the end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from vmctl.testing.outcomes import Outcomes

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from vmctl.testing.session import Session

RUN = "vmctl_run"  # key of what pytest-xdist gives its workers


class State:
    """The plugin in one process: of pytest, of pytest-xdist's controller, or of one of its workers."""

    def __init__(self, config: pytest.Config) -> None:
        given = getattr(config, "workerinput", {})
        self.config = config
        self.worker: str = given.get("workerid", "")
        self.run: str = given.get(RUN) or os.urandom(3).hex()
        self.modes = list(dict.fromkeys(filter(None, config.getoption("vmctl_mode").split(","))))
        self.keep: bool = config.getoption("vmctl_keep")
        self.outcomes = Outcomes(self.modes)
        self.left: list[str] = []
        self.kept: list[str] = []
        self._session: Session | None = None
        if self.modes:
            self._check_modes()

    def _check_modes(self) -> None:
        from vmctl import backends

        known = sorted(backends.modes())
        for mode in self.modes:
            if mode not in known:
                raise pytest.UsageError(f"--vmctl-mode: there is no mode {mode}; there are {', '.join(known)}")

    def session(self) -> Session:
        """Return what starts instances; it is made when the first test asks for one."""
        if self._session is None:
            from vmctl.testing.session import Session

            self._session = Session(self.run, self.worker)
        return self._session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcome of a test; this is a hook, which is called in the process that reports."""
        if len(self.modes) > 1 and not self.worker:
            self.outcomes.add(report)

    def end(self) -> None:
        """Remove snapshots and what was left behind, once no worker runs any more; in a worker do nothing."""
        if self.worker or not (self._session or "xdist" in sys.modules):
            return
        from vmctl.testing import ending

        self.kept, self.left = ending.end(self.run)

    def show(self, reporter: TerminalReporter) -> None:
        """Write the sections of the summary."""
        if len(self.modes) > 1:
            reporter.section("vmctl: outcomes by mode")
            for line in self.outcomes.lines():
                reporter.line(line)
        if self.kept:
            reporter.section("vmctl: kept for failed tests")
            for name in self.kept:
                reporter.line(f"{name}: `vmctl shell {name}`; `vmctl rm -f {name}` removes it")
        if self.left:
            reporter.section("vmctl: left behind by tests", red=True)
            for text in self.left:
                reporter.line(text, red=True)


STATE = pytest.StashKey[State]()
