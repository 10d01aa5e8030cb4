"""The statistics against scipy, against published values, and against their guarantees by simulation."""

import math
import random
import statistics as standard

import numpy
import pytest
from scipy import stats

from bench import statistics

NUMBERS = random.Random(5)
SAMPLES = [
    [1.0],
    [2.0, 1.0],
    [3.0, 3.0, 3.0],
    [NUMBERS.gauss(10, 2) for _ in range(101)],
    [float(NUMBERS.randrange(7)) for _ in range(150)],
    [NUMBERS.expovariate(1) for _ in range(1000)],
]
EACH_SAMPLE = pytest.mark.parametrize("values", SAMPLES, ids=len)


@EACH_SAMPLE
def test_the_median_and_its_deviation_are_those_of_scipy(values):
    assert statistics.median(values) == pytest.approx(numpy.median(values), rel=1e-12)
    assert statistics.deviation(values) == pytest.approx(stats.median_abs_deviation(values), rel=1e-12)


@EACH_SAMPLE
@pytest.mark.parametrize("percent", [5, 95, 99])
def test_percentiles_are_those_of_numpy_where_there_are_enough_values(values, percent):
    found, needed = statistics.percentile(values, percent), {5: 100, 95: 100, 99: 1000}[percent]
    if len(values) < needed:
        assert found is None
        text = f"p{percent} needs {needed} observations, there are {len(values)}"
        assert statistics.lacking(percent, len(values)) == text
    else:
        assert found == pytest.approx(numpy.percentile(values, percent), rel=1e-12)
        assert statistics.lacking(percent, len(values)) == ""


def test_outliers_are_flagged_by_the_stated_rule():
    values = [10.0, 10.1, 9.9, 10.2, 9.8, 10.0, 10.05, 14.0]
    limit = 3 * 1.4826 * stats.median_abs_deviation(values)
    assert statistics.outliers(values) == [abs(value - numpy.median(values)) > limit for value in values]
    assert statistics.outliers(values)[-1] is True
    assert sum(statistics.outliers(values)) == statistics.spread(values).outliers == 1
    assert statistics.outliers([]) == []
    assert statistics.outliers([5.0] * 9) == [False] * 9


def test_cliffs_delta_is_that_of_mann_and_whitneys_u():
    for seed in range(20):
        chance = random.Random(seed)
        first = [float(chance.randrange(12)) for _ in range(chance.randrange(1, 40))]
        second = [float(chance.randrange(10)) for _ in range(chance.randrange(1, 40))]
        u = stats.mannwhitneyu(first, second).statistic
        assert statistics.cliffs_delta(first, second) == pytest.approx(2 * u / (len(first) * len(second)) - 1)


def test_cliffs_delta_at_its_ends():
    assert statistics.cliffs_delta([3, 4], [1, 2]) == 1
    assert statistics.cliffs_delta([1, 2], [3, 4]) == -1
    assert statistics.cliffs_delta([1, 2], [1, 2]) == 0


# Slopes


def ladder(seed, count, slope=2.5, noise=3.0):
    chance = random.Random(seed)
    return [(float(x), slope * x + chance.gauss(0, noise)) for x in range(count)]


@pytest.mark.parametrize("count", [2, 5, 11, 40])
def test_the_slope_of_one_ladder_and_its_interval_are_those_of_scipy(count):
    points = ladder(count, count)
    found = stats.theilslopes([y for _, y in points], [x for x, _ in points], alpha=0.95)
    assert statistics.slope([points]) == pytest.approx(found.slope)
    interval = statistics.slope_interval([points])
    if count < 10:
        assert interval is None
    else:
        assert interval == pytest.approx((found.low_slope, found.high_slope))


def test_the_slope_with_ties_is_that_of_scipy():
    points = [
        (x, float(y)) for x, y in zip((1, 1, 2, 3, 4, 4, 5, 6, 7, 8), (2, 3, 3, 5, 5, 8, 9, 9, 9, 14), strict=True)
    ]
    found = stats.theilslopes([y for _, y in points], [x for x, _ in points], alpha=0.95)
    assert (statistics.slope([points]), statistics.slope_interval([points])) == (
        pytest.approx(found.slope),
        pytest.approx((found.low_slope, found.high_slope)),
    )


def test_sens_own_example():
    """Sen 1968, section 6: the slope is 4."""
    x, y = (1, 2, 3, 4, 10, 12, 18), (9, 15, 19, 20, 45, 55, 78)
    points = list(zip(map(float, x), map(float, y), strict=True))
    assert statistics.slope([points]) == 4


def test_a_slope_does_not_mind_where_a_ladder_begins():
    first, second = ladder(1, 12), ladder(2, 12)
    moved = [(x, y + 1e6) for x, y in second]
    assert statistics.slope([first, moved]) == pytest.approx(statistics.slope([first, second]))
    together = statistics.slope_interval([first, moved])
    assert together == pytest.approx(statistics.slope_interval([first, second]))
    alone = statistics.slope_interval([first])
    assert together.high - together.low < alone.high - alone.low


def test_there_is_no_slope_without_two_places():
    assert statistics.slope([]) is None
    assert statistics.slope([[(1.0, 5.0)]]) is None
    assert statistics.slope([[(1.0, 5.0), (1.0, 6.0)]]) is None
    assert statistics.slope_interval([[(1.0, float(y)) for y in range(20)]]) is None


def test_the_interval_of_a_slope_covers_the_true_one():
    inside = 0
    for seed in range(400):
        interval = statistics.slope_interval([ladder(seed, 6), ladder(1000 + seed, 6), ladder(2000 + seed, 6)])
        inside += interval.low <= 2.5 <= interval.high
    assert 0.91 <= inside / 400 <= 0.99


def test_the_ratio_of_slopes_lies_in_its_interval_and_the_interval_is_honest_about_nothing():
    inside = 0
    for seed in range(200):
        first = [ladder(seed, 8, 5.0), ladder(seed + 1000, 8, 5.0)]
        second = [ladder(seed + 2000, 8), ladder(seed + 3000, 8)]
        interval = statistics.slope_ratio_interval(first, second)
        inside += interval.low <= 2.0 <= interval.high
    assert inside / 200 >= 0.95
    flat = [ladder(seed, 8, 0.0) for seed in range(2)]
    assert statistics.slope_ratio_interval(flat, [ladder(5, 8), ladder(6, 8)]) == (0.0, math.inf)
    assert statistics.slope_ratio_interval([ladder(1, 3)], [ladder(2, 8)]) is None


# Medians and their ratios


def test_no_interval_for_fewer_than_thirty():
    assert statistics.median_interval([1.0] * 29) is None
    assert statistics.ratio_interval([(1.0, 1.0)] * 29) is None
    assert statistics.change_interval([[1.0]] * 30, [[1.0]] * 29, 1) is None
    assert statistics.median_interval([1.0] * 30) == (1.0, 1.0)


def test_the_seed_alone_decides_of_an_interval():
    values = SAMPLES[3]
    assert statistics.median_interval(values, 3) == statistics.median_interval(values, 3)
    assert statistics.median_interval(values, 3) != statistics.median_interval(values, 4)
    assert statistics.median_interval(values, 3 + 2**32) == statistics.median_interval(values, 3)


def test_the_bootstrap_is_that_of_scipy():
    """The random draws differ, so the ends are only nearly the same."""
    values = SAMPLES[5]
    theirs = stats.bootstrap((values,), numpy.median, n_resamples=2000, method="percentile", random_state=1)
    ours = statistics.median_interval(values)
    width = ours.high - ours.low
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=width * 0.2)


def test_resampled_medians_are_medians_of_what_was_drawn():
    """Rounds with several values each, drawn several times or not at all."""
    rounds = [[5.0, 1.0], [2.0], [9.0, 9.0, 3.0], [4.0]]
    drawn = numpy.array([[1, 1, 1, 1], [4, 0, 0, 0], [0, 2, 1, 1], [0, 0, 3, 1]])
    wanted = [
        standard.median([value for count, one in zip(row, rounds, strict=True) for value in one * count])
        for row in drawn
    ]
    assert list(statistics._medians(rounds, drawn)) == wanted


def test_rounds_are_drawn_whole():
    """Thirty servers with a hundred similar answers each are thirty observations, not three thousand."""
    chance = random.Random(3)
    middles = [chance.gauss(100, 10) for _ in range(30)]
    rounds = [[middle + chance.gauss(0, 0.1) for _ in range(100)] for middle in middles]
    whole = statistics.rounds_interval(rounds)
    apart = statistics.median_interval([value for one in rounds for value in one])
    assert whole.high - whole.low > 3 * (apart.high - apart.low)


def noisy(chance, middle, disturbed=1.0):
    """Return a realistic time: skewed, sometimes an outlier."""
    return middle * disturbed * chance.lognormvariate(0, 0.03) * (1.5 if chance.random() < 0.05 else 1)


def trials(ratio, count=400, rounds=30):
    """Return the intervals of the ratio of two contenders with common disturbances in their rounds."""
    found = []
    for seed in range(count):
        chance = random.Random(f"{ratio} {seed}")
        shared = [chance.lognormvariate(0, 0.05) for _ in range(rounds)]
        pairs = [(noisy(chance, ratio, each), noisy(chance, 1.0, each)) for each in shared]
        found.append(statistics.ratio_interval(pairs, seed))
    return found


def test_the_interval_of_the_median_covers_the_true_one():
    """The true median of a lognormal distribution around 1 is 1."""
    inside = 0
    for seed in range(400):
        chance = random.Random(seed)
        interval = statistics.median_interval([chance.lognormvariate(0, 0.3) for _ in range(30)], seed)
        inside += interval.low <= 1 <= interval.high
    assert 0.91 <= inside / 400 <= 0.99


def test_the_interval_of_a_ratio_covers_the_true_one():
    inside = sum(low <= 1.2 <= high for low, high in trials(1.2))
    assert 0.92 <= inside / 400 <= 1.0


def test_the_same_twice_is_seldom_called_different():
    different = [statistics.verdict(interval) in ("more", "less") for interval in trials(1.0)]
    assert sum(different) / len(different) <= 0.05


def test_whole_rounds_and_a_random_order_are_why():
    """The same numbers in blocks: a machine that becomes slower causes a false difference."""
    false = 0
    for seed in range(50):
        chance = random.Random(seed)
        drift = [1 + 0.1 * place / 60 for place in range(60)]
        times = [noisy(chance, 1.0, each) for each in drift]
        interval = statistics.change_interval([[t] for t in times[30:]], [[t] for t in times[:30]], seed)
        false += statistics.verdict(interval) == "more"
    assert false / 50 > 0.5


# Verdicts


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        (None, "few"),
        ((1.04, 1.06), "more"),
        ((1.001, 1.04), "more"),
        ((0.9, 0.95), "less"),
        ((0.96, 0.999), "less"),
        ((1.001, 1.02), "small"),
        ((0.98, 0.999), "small"),
        ((0.99, 1.01), "equal"),
        ((0.97, 1.03), "equal"),
        ((1.0, 1.01), "equal"),
        ((0.9, 1.01), "undecided"),
        ((0.99, 1.1), "undecided"),
        ((0.0, math.inf), "undecided"),
        ((1.5, math.inf), "more"),
        ((math.nan, math.nan), "undecided"),
    ],
)
def test_the_rule(interval, word):
    assert statistics.verdict(interval and statistics.Interval(*interval)) == word
    assert word in statistics.VERDICTS


def test_a_difference_as_large_as_the_band_is_found_where_the_scatter_is_small():
    """With the ratio itself it would be found half of the time."""
    found = beyond = 0
    for seed in range(200):
        chance = random.Random(seed)
        pairs = [(chance.lognormvariate(math.log(1.03), 0.005), chance.lognormvariate(0, 0.005)) for _ in range(30)]
        found += statistics.verdict(statistics.ratio_interval(pairs, seed)) == "more"
        beyond += statistics.ratio(pairs) > 1.03
    assert found / 200 >= 0.93
    assert 0.35 < beyond / 200 < 0.65


# How many rounds are needed


def test_the_estimated_number_of_rounds_finds_it():
    def pairs(seed, count, slower=1.0):
        chance = random.Random(seed)
        return [(slower * chance.lognormvariate(0, 0.06), chance.lognormvariate(0, 0.06)) for _ in range(count)]

    guesses = [statistics.runs_needed(pairs(seed, 60), seed) for seed in range(41)]
    needed = sorted(guesses)[20]
    assert needed > 60
    found = few = 0
    for seed in range(100):
        interval = statistics.ratio_interval(pairs(1000 + seed, needed, 1.03), seed)
        found += interval.low > 1
        few += statistics.ratio_interval(pairs(1000 + seed, 30, 1.03), seed).low > 1
    assert found >= 88
    assert few < 75


def test_it_takes_four_times_the_rounds_for_half_the_difference():
    chance = random.Random(4)
    pairs = [(chance.lognormvariate(0, 0.1), chance.lognormvariate(0, 0.1)) for _ in range(30)]
    large, half = statistics.runs_needed(pairs), statistics.runs_needed(pairs, difference=math.sqrt(1.03) - 1)
    assert half == pytest.approx(4 * large, rel=0.01)


def test_from_too_little_nothing_is_guessed():
    assert statistics.runs_needed([(1.0, 1.0)] * 9) is None
    assert statistics.runs_needed([(1.0, 1.0)] * 10) == 30
    assert statistics.runs_needed([(0.0, 1.0)] * 6 + [(1.0, 1.0)] * 7) is None
