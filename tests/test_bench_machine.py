"""The sentence about the control: for a steady machine, an unsteady one, and without enough rounds."""

import random

import pytest
from support.bench_results import finished, make, replaced

from bench import export, machine, table
from bench.model import CONTROL
from bench.report import page


def with_work_s(result, seconds):
    """Return the result with these times of the control; None for a failed round."""
    left = iter(seconds)

    def sample(one):
        if one.kind != CONTROL:
            return one
        took_s = next(left)
        if took_s is None:
            return replaced(one, error="no memory", values={})
        return replaced(one, values={"work_s": took_s})

    return finished(result, samples=tuple(map(sample, result.samples)))


def scattered(share, count=32):
    """Return times near 15 ms with a scaled median absolute deviation near `share` of that."""
    chance = random.Random(3)
    return [0.015 * (1 + share * chance.gauss(0, 1)) for _ in range(count)]


@pytest.fixture(scope="module")
def result():
    return make(metrics=("boot",), faults=False)


def test_the_figure_is_that_of_its_samples(result):
    found = machine.figure(with_work_s(result, [0.010, 0.011, 0.012, 0.013] * 8))
    assert (found.value, found.mode, found.observations) == (0.0115, "", 32)
    assert machine.scatter_share(found) == pytest.approx(1.4826 * 0.001 / 0.0115)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (scattered(0.01), "the machine was steady"),
        (scattered(0.09), "the machine was not quite steady"),
        (scattered(0.4), "the machine was not steady"),
        ([*scattered(0.01, 24), *[0.1] * 8], "8 outliers in 32 rounds): the machine was not steady"),
        ([0.015] * 30 + [None] * 2, "scaled MAD 0 %, 0 outliers in 30 rounds, 2 failed): the machine was steady"),
        ([0.0152] * 5 + [None] * 27, "took 15.2 ms (median of 5, 27 failed): fewer than 10 rounds do not show"),
        ([None] * 32, "was not observed: no memory."),
    ],
    ids=["steady", "not quite", "unsteady", "strays", "failed", "few", "none"],
)
def test_the_sentence(result, seconds, text):
    changed = with_work_s(result, seconds)
    sentence = machine.sentence(changed)
    assert text in sentence
    assert sentence in list(table.notes(changed))
    assert sentence in export.markdown(changed)
    assert sentence in page.page(changed)


def test_the_page_has_a_row_of_it(result):
    assert "The control: fixed work as a plain process" in page.page(result)


def test_a_result_without_a_control_has_no_sentence(result):
    old = replaced(result, format="vmctl bench 2", figures=result.figures[:-1])
    for one in (old, make(metrics=("density",))):
        assert machine.figure(one) is None
        assert machine.sentence(one) == ""
        assert "control" not in " ".join(table.notes(one))
        assert page.page(one)
