"""A ladder that was cut short: the reason appears with all its figures."""

import pytest
from support.bench_results import finished, make, replaced

from bench import cutshort, export, table
from bench.questions import of
from bench.report import page, words

WHY = "before instance 2: instances share the host's network in mode host, and it has port 8000 only once"
ALONE = f"stopped {WHY}"


def cut(result, mode, count, why=WHY):
    """Return the result with its ladders in a mode stopped after `count` instances."""

    def sample(one):
        if (one.kind, one.mode) != ("ladder", mode):
            return one
        series = {name: values[: count + (len(values) > 5)] for name, values in one.series.items()}
        values = {**one.values, "instances": float(count)}
        return replaced(one, values=values, series=series, texts={**one.texts, "stopped": why})

    return finished(result, samples=tuple(map(sample, result.samples)))


def question(result, key):
    return next(one for _, one in of(result.plan) if one.key == key)


@pytest.fixture(scope="module")
def whole():
    return make(runs=3, metrics=("boot", "memory", "density"), faults=False)


@pytest.fixture(scope="module")
def short(whole):
    return cut(whole, "host", 1)


def test_a_whole_ladder_has_no_remark(whole):
    assert list(cutshort.sentences(whole)) == []
    assert {cutshort.remark(whole, one, mode) for _, one in of(whole.plan) for mode in whole.plan.modes} == {""}


def test_the_remark_on_a_first_instance_only(short):
    assert cutshort.remark(short, question(short, "memory.marginal_bytes"), "host") == ALONE
    assert cutshort.remark(short, question(short, "density.start_slope_s"), "host") == f"stopped {WHY}"
    assert cutshort.remark(short, question(short, "memory.marginal_bytes"), "container") == ""
    assert cutshort.remark(short, question(short, "boot.answer_s"), "host") == ""


def test_it_is_in_the_sentences_the_tables_and_the_notes(short):
    assert f"A plain process: {ALONE}." in words.sentences(short, question(short, "memory.marginal_bytes"))
    rows = [line for line in export.markdown(short).splitlines() if WHY in line]
    assert [row.split("|")[1].replace("&nbsp;", "").strip() for row in rows if row.startswith("|")] == [
        "memory for one more instance",
        "more than the one before",
    ]
    note = f"host: 1 of 5 instances at the same time; stopped {WHY}, so the cost of one more is unknown"
    assert any(line.startswith(note) for line in table.notes(short))
    only = "only one instance could run, and the first one pays for what all share"
    lacking = f"A plain process: no answer ({only}). One instance has "
    assert any(line.startswith(lacking) for line in words.sentences(short, question(short, "memory.marginal_bytes")))
    assert page.page(short).count(only) >= 2
    assert [one for one in short.ratios if one.key == "memory.marginal_bytes" and "host" in (one.mode, one.base)] == []


def test_one_that_got_further_has_a_slope_of_what_ran(whole):
    found = cut(whole, "vm", 3, "before instance 4: the host has 1 GiB of memory available")
    assert cutshort.remark(found, question(found, "memory.marginal_bytes"), "vm").startswith(
        "stopped before instance 4"
    )
    (note,) = cutshort.sentences(found)
    assert note.startswith("vm: 3 of 5 instances at the same time; stopped before instance 4: the host has 1 GiB")
    assert "first one" not in note
