"""The cost of one more instance is above 0, or it was not measured; what else a busy host must not make us print."""

import random
import re

import pytest
from support.bench_results import finished, make, replaced

from bench import export, marginal, summary, table
from bench.report import page, words
from bench.statistics import VERDICTS, tau
from bench.verify import verify

MIB = 1 << 20


def ladder(*values):
    return list(enumerate(map(float, values)))


@pytest.mark.parametrize(
    ("ladders", "own", "words"),
    [
        ([ladder(0, 10, 20, 30)], None, ""),
        ([ladder(0, 10, 19, 31), ladder(5, 14, 25, 24)], 20.0, ""),
        ([ladder(0, -10, -20, -30)], None, "not measurable here: the slope is -10 B"),
        ([ladder(0, 0, 0, 0)], None, "not measurable here: the slope is 0 B"),
        ([ladder(0, 90, -70, 80, 20)], None, "the points do not rise together, so other programs moved it"),
        ([ladder(0, 10, 20, 30)], 200.0, "the slope is 10 B, but the processes of one instance use 200 B"),
        ([ladder(0, 10)], None, "only one instance could run"),
        ([ladder(0, 10), ladder(0, 12)], None, "only one instance could run"),
    ],
)
def test_what_counts_as_a_cost(ladders, own, words):
    found = marginal.refused(ladders, "bytes", own)
    assert words in found
    assert bool(words) == bool(found)


def test_tau_is_that_of_kendall():
    scipy = pytest.importorskip("scipy.stats")
    chance = random.Random(1)
    for _ in range(20):
        values = [chance.random() for _ in range(7)]
        assert tau([ladder(*values)]) == pytest.approx(scipy.kendalltau(range(7), values).statistic)


def disturbed(seed):
    """Return a result for which a neighbour took and freed up to 600 MiB at random while guests were added."""
    whole, chance = make(runs=3, seed=seed, faults=False), random.Random(seed)
    samples = [
        replaced(one, series={**one.series, "available_bytes": [4e9 - chance.random() * 600 * MIB for _ in range(6)]})
        if one.kind == "ladder"
        else one
        for one in whole.samples
    ]
    return finished(whole, samples=tuple(samples))


@pytest.mark.parametrize("seed", range(8))
def test_a_disturbed_host_has_no_impossible_figure(seed):
    result = disturbed(seed)
    assert verify(result) == []
    found = [one for one in result.figures if one.key == "memory.marginal_bytes"]
    assert all(one.value is None or one.value > 0 for one in found)
    assert any(one.value is None for one in found)
    assert {one.key for one in result.ratios if one.ratio <= 0} == set()
    for text in (export.markdown(result), page.page(result)):
        assert not re.search(r"one more costs -|[^s] -\d[\d.]* [KM]iB|: -\d[\d.]* [KM]iB each", text)
    _, question = next(pair for pair in words.asked(result) if pair[1].key == "memory.marginal_bytes")
    assert any("not measurable here" in one for one in words.sentences(result, question))


def test_a_result_of_before_with_a_slope_below_0_is_still_read():
    result = disturbed(1)
    shown = [
        replaced(one, value=-556.0 * MIB, why="") if one.key == "memory.marginal_bytes" else one
        for one in result.figures
    ]
    assert verify(replaced(result, format="vmctl bench 3", figures=tuple(shown))) == []
    assert verify(replaced(result, figures=tuple(shown))) != []


def test_few_rounds_show_what_each_run_shows():
    result = make(runs=3, faults=False)
    _, question = next(pair for pair in words.asked(result) if pair[1].key == "boot.answer_s")
    guest = next(one for one in words.sentences(result, question) if one.startswith("A VM"))
    assert "each run longer than every run of a plain process" in guest
    assert "times" not in guest
    assert {row[2] for row in table.ratio_rows(result) if row[3] == VERDICTS["few"]} == {"-"}
    assert summary.summarise(result.plan, result.samples)[0] == result.figures
    assert all(one.outliers == 0 for one in result.figures if one.observations < 8)


@pytest.mark.parametrize(("load", "warned"), [(0.4, False), (2.0, False), (22.3, True)])
def test_a_busy_host_is_the_first_thing_said(load, warned):
    result = make(runs=3, host={**make(runs=3).host, "load_average": [load, 1.0, 1.0]})
    words = f"The host was busy: its load was {load:.1f} on 2 processors"
    assert next(table.notes(result)).startswith(words) == warned
    assert (words in page.page(result)) == warned
    assert (words in export.markdown(result)) == warned
