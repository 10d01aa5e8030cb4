"""The points of checked records, in the forms that course systems read: CSV for Moodle, Gradescope, Autolab."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.export import as_text
from bench.handins import check
from bench.handins.assertions import Assertions
from bench.handins.check import DOUBTFUL, WRONG, Finding
from bench.handins.record import Record
from vmctl.console import visible


class Checked(NamedTuple):
    """A record and what was found in it."""

    file: str
    record: Record
    findings: tuple[Finding, ...]
    asked: Assertions

    @property
    def points(self) -> dict[str, float]:
        """The points of each lab that counts, by its name."""
        counted = check.confirmed(self.record, self.findings)
        if not self.asked.doubtful:
            doubtful = {one.run for one in self.findings if one.level == DOUBTFUL}
            counted = {name: run for name, run in counted.items() if run.id not in doubtful}
        return {name: self.asked.worth(name) * (name in counted) for name in self.asked.wanted(self.record)}

    @property
    def score(self) -> float:
        """The sum of the points."""
        return sum(self.points.values())

    @property
    def most(self) -> float:
        """The points of all labs that count."""
        return sum(map(self.asked.worth, self.asked.wanted(self.record)))

    def wrong(self) -> list[Finding]:
        """Return the findings that cost points."""
        return [one for one in self.findings if one.level == WRONG]


def sentence(finding: Finding) -> str:
    """Return a finding with the run that it is of."""
    return f"{finding.run}: {finding.text}" if finding.run else finding.text


def moodle(checked: Sequence[Checked]) -> str:
    """Return a CSV for Moodle's import of grades: name, grade, most, feedback (RFC 4180)."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("Full name", "Grade", "Maximum grade", "Feedback comments"))
    for one in checked:
        feedback = "; ".join(map(sentence, one.findings))
        name, text = (as_text(visible(part)) for part in (one.record.student or one.file, feedback))
        writer.writerow((name, one.score, one.most, text))
    return file.getvalue()


def gradescope(one: Checked) -> str:
    """Return the results.json of Gradescope's autograder for one record."""
    by_run = {run.id: name for name, run in one.record.latest().items()}
    tests: list[dict[str, Any]] = []
    for name, points in one.points.items():
        texts = [finding.text for finding in one.findings if by_run.get(finding.run, finding.run) == name]
        run = one.record.latest().get(name)
        tests.append(
            {
                "name": name,
                "score": points,
                "max_score": one.asked.worth(name),
                "status": "passed" if points else "failed",
                "output": "\n".join([f"{run.verdict}: {run.reason}" if run else "not run", *texts]),
            }
        )
    general = "\n".join(sentence(finding) for finding in one.findings if finding.run not in (*by_run, *one.points))
    return json.dumps({"score": one.score, "output": general, "output_format": "text", "tests": tests}, indent=2)


def autolab(one: Checked) -> str:
    """Return the last line that an autograder of Autolab prints, with the points of each lab."""
    return json.dumps({"scores": one.points})
