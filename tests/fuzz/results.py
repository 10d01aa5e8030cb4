"""Results of measurements, which students hand in."""

import contextlib
import csv
import html.parser
import io
import json
import os

import msgspec
from support.bench_results import make

from bench import compare, export, history, result, verify
from bench.report import page
from fuzz import place
from fuzz.check import target

RESULT = make(runs=2, metrics=("boot", "memory", "disk", "teardown"))
SMALL = make(runs=1, modes=("host",), metrics=("boot",), faults=False)
TEXT = msgspec.json.encode(RESULT)
LITTLE = msgspec.json.encode(SMALL)
WORDS = (
    "null",
    "1e308",
    "-1e308",
    "1e-308",
    "-0.0",
    "NaN",
    "0",
    "[]",
    "{}",
    '"T6":',
    '"round":',
    '"</script>"',
    '"=1+1"',
)
WORDS += ("9" * 20, '"\\ud800"', '"\\u0000"', '"<script>alert(1)</script>"', '"\\u001b[2J"', "253000000000", "[" * 2000)


@target("result", LITTLE, TEXT, words=WORDS, cost=30)
def results(data):
    path = place.file("result/result.json", data)
    found = result.read(path)
    verify.verify(found)
    texts = export.markdown(found), export.samples_csv(found)
    verify.verify_reports(found, os.path.dirname(path))
    rows = list(csv.reader(io.StringIO(texts[1], newline="")))
    assert all(len(row) == len(export.COLUMNS) for row in rows)
    with contextlib.suppress(result.SpecError):
        json.loads(export.hyperfine(found))


@target("result-compare", LITTLE, TEXT, words=WORDS, cost=30)
def compared(data):
    found = result.read(place.file("result/result.json", data))
    for before, after in ((SMALL, found), (found, SMALL)):
        with contextlib.suppress(result.SpecError):
            compare.compare(before, after, ratios=False, other_workload=True)
            compare.control(before, after)
            compare.left_out(before, after)
    history.entries([("a", SMALL), ("b", found)])


class _Scripts(html.parser.HTMLParser):
    """The script elements and event handlers of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "iframe", "object", "embed", "base", "meta", "link", "form", "img"):
            self.found.append((tag, *sorted(attrs)))
        self.found += [(tag, name) for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def scripts(text):
    """Return what a browser would execute or fetch in a page."""
    parser = _Scripts()
    parser.feed(text)
    return parser.found


@target("report-page", LITTLE, words=WORDS, cost=1500)
def report(data):
    found = result.read(place.file("result/result.json", data))
    text = page.page(found)
    assert scripts(text) == scripts(page.page(SMALL))
