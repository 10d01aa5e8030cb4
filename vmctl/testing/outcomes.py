"""Compare how the same test has ended in each mode, from the reports of all workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

MODE, TEST = "vmctl_mode", "vmctl_test"  # properties of a report
MISSING = "not run"
_RANK = ("passed", "skipped", "xfailed", "xpassed", "failed", "error")


def without_mode(nodeid: str, mode: str) -> str:
    """Return the id of a test without the mode, which is the last of its parameters."""
    for end, replaced in ((f"[{mode}]", ""), (f"-{mode}]", "]")):
        if nodeid.endswith(end):
            return nodeid.removesuffix(end) + replaced
    return nodeid


class Outcomes:
    """The worst outcome of each test in each mode."""

    def __init__(self, modes: Sequence[str]) -> None:
        self.modes = modes
        self._found: dict[str, dict[str, str]] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take the outcome of a report; of a test without a mode it is nothing."""
        properties = dict(report.user_properties)
        mode = properties.get(MODE)
        if mode not in self.modes:
            return
        of_test = self._found.setdefault(without_mode(report.nodeid, str(mode)), {})
        outcome = _outcome(report)
        of_test[str(mode)] = max(of_test.get(str(mode), _RANK[0]), outcome, key=_RANK.index)

    def lines(self) -> Iterator[str]:
        """Yield a line for each test that has not ended in the same way everywhere, then one with the count."""
        differing = 0
        for test, by_mode in self._found.items():
            if len({by_mode.get(mode, MISSING) for mode in self.modes}) > 1:
                differing += 1
                yield f"{test}: " + ", ".join(f"{by_mode.get(mode, MISSING)} in {mode}" for mode in self.modes)
        compared = f"{len(self._found)} test{'s' * (len(self._found) != 1)} compared in {', '.join(self.modes)}"
        yield f"{compared}: {differing or 'none'} differ{'s' * (differing == 1)}"


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xpassed" if report.passed else "xfailed"
    if report.failed:
        return "failed" if report.when == "call" else "error"
    return report.outcome
