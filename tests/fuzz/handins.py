"""Records of labs, which students hand in, and what a teacher writes about them."""

import csv
import io
import json

import msgspec
from support.lab_evidence import EVIDENCE

from bench import labs
from bench.claims import checking
from bench.handins import assertions, check, grades, record, report
from bench.handins.record import Record
from bench.labs.running import Outcome
from fuzz import place
from fuzz.check import target
from fuzz.results import WORDS, scripts

BOOT = "11111111-1111-1111-1111-111111111111"
FACTS = {"begun": 1.7e9, "host": "h", "boot": BOOT, "accelerator": "tcg", "load": (0.5, 0.6)}
TEACHER = """
labs: [shared-kernel, same-port]
points: {shared-kernel: 2}
verdicts: {shared-kernel: holds}
predictions: true
student: true
seed: "{student}"
doubtful: false
values: [{lab: start-times, name: "container: start", below: 0.5}]
"""


def _record():
    found = Record(vmctl="0.2.0", id="a", student="Ada", seed="Ada", hosts={"h": {"cpus": 2}})
    for lab in labs.labs():
        seen, _ = EVIDENCE[lab.number]
        found = record.added(found, Outcome(lab.number, lab.name, lab.claim, *lab.decide(seen), seen, 30.0), FACTS)
    return found


GOOD = _record()
WRITTEN = json.dumps({"format": 1, **msgspec.to_builtins(GOOD)})


@target("lab-record", WRITTEN, words=WORDS, cost=60)
def handed_in(data):
    found = record.parse(data, "labs.json")
    findings = tuple(check.check(found))
    check.shared({"a": GOOD, "b": found})
    one = grades.Checked("b", found, findings, assertions.Assertions())
    assert len(list(csv.reader(io.StringIO(grades.moodle([one]), newline="")))) == 2
    for text in (grades.gradescope(one), grades.autolab(one), report.notebook(found)):
        json.loads(text)
    report.markdown(found)


@target("lab-page", WRITTEN, words=WORDS, cost=600)
def lab_page(data):
    assert scripts(report.page(record.parse(data, "labs.json"))) == scripts(report.page(GOOD))


@target("lab-assertions", TEACHER, words=("null", "- ", "1e308", ".nan", "!!binary aGk="), cost=4)
def teacher(data):
    asked = assertions.read(place.file("asked.yaml", data))
    grades.gradescope(grades.Checked("a", GOOD, tuple(assertions.check(GOOD, asked)), asked))


CLAIMS = ("0.82 -> 0.6 s is 73 % faster", "70 + 34 + 40 ms = 144 ms", "9 of 12.8 GB is 72 %", "1.74 ms is under 1 ms")


@target("claim", *CLAIMS, words=("->", " is ", "% faster", "times", "1e999", "**", "/ 0", "((", "\u00d7"))
def claim(data):
    checking.check(data.decode(errors="surrogateescape"))
