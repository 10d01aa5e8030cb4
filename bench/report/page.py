"""A result as one self-contained HTML file, with its raw data, without scripts, and without the network."""

from __future__ import annotations

from typing import NamedTuple

from bench import equal, machine
from bench.model import Result
from bench.report import charts, conclusions, glance, glossary, html, memory, tables, words
from bench.report.charts import Chart
from bench.report.glance import Cell
from bench.statistics import ENOUGH

# Characters that could end a script element or begin a comment in it (HTML, 13.2.5.4). JSON has them only in strings.
_IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class Section(NamedTuple):
    """One headline question: its answers as a figure per mode and as sentences, and its charts."""

    name: str
    heading: str
    better: str  # "more is better", or "" for the usual case
    cells: list[Cell]
    sentences: list[str]
    meaning: str
    charts: list[Chart]


def page(result: Result) -> str:
    """Return the page. The same result and the same matplotlib give the same bytes."""
    from markupsafe import Markup

    return html.rendered(
        "page.html.j2",
        filters={"tight": glance.tight, "stacked": glance.stacked, "coded": glance.coded},
        result=result,
        title=words.title(result),
        host=words.host(result),
        emulated=words.emulated(result),
        busy=machine.busy(result),
        resources=equal.sentence(result),
        unequal=equal.unequal(result),
        few=result.plan.runs < ENOUGH,
        enough=ENOUGH,
        labels={mode: words.label(result, mode) for mode in result.plan.modes},
        notes=list(words.notes(result)),
        conclusions=conclusions.paragraph(result),
        memory=memory.chart(result),
        terms=glossary.TERMS,
        sections=sections(result),
        tables=tables,
        raw=Markup(embedded(result)),  # escaped by `embedded`
    )


def sections(result: Result) -> list[Section]:
    """Return a section per headline question, in the order of the metrics."""
    found = []
    for number, (kind, question) in enumerate(words.headlines(result), 1):
        drawn = [charts.of(result, kind, question, f"q{number}")]
        if question.metric == "boot":
            drawn.append(charts.phases(result, kind, question, f"q{number}p"))
        found.append(
            Section(
                f"question-{number}",
                words.heading(result, question),
                "" if question.less_is_better else "more is better",
                glance.cells(result, question),
                words.sentences(result, question),
                question.meaning,
                [chart for chart in drawn if chart is not None],
            )
        )
    return found


def embedded(result: Result) -> str:
    """Return the result as JSON that is safe in a script element, with any text in it."""
    import msgspec

    text = msgspec.json.encode(result).decode()
    return text.translate(_IN_SCRIPT)
