"""The figures of a result: how they are computed, and their remarks if observations are too few."""

import statistics as standard
import subprocess
import sys

import pytest
from support import bench_results
from support.bench_results import failed, finished, make, replaced

from bench import questions, statistics


@pytest.fixture(scope="module")
def result():
    return make()


def figure(result, key, mode):
    return next(one for one in result.figures if (one.key, one.mode) == (key, mode))


def ratio(result, key, mode, base):
    return next((one for one in result.ratios if (one.key, one.mode, one.base) == (key, mode, base)), None)


def values(result, name, mode, kind="start"):
    return [one.values[name] for one in result.of(kind, mode) if one.error is None and name in one.values]


def test_each_question_has_a_figure_in_each_mode(result):
    asked = [question.key for _, question in questions.asked(result.plan.metrics, service=True)]
    assert len(asked) > 20
    figures = [(key, mode) for key in asked for mode in result.plan.modes]
    assert [(one.key, one.mode) for one in result.figures] == [*figures, ("control.work_s", "")]
    assert "boot.output_s" not in asked  # a question for batch workloads only


def test_a_batch_is_asked_for_its_output():
    workload = {**bench_results.SERVICE, "ready": None}
    batch = make(metrics=("boot", "teardown"))
    batch = finished(batch, plan=replaced(batch.plan, workload=workload))
    keys = {one.key for one in batch.figures}
    assert "boot.output_s" in keys
    assert "boot.answer_s" not in keys


def test_a_figure_follows_from_its_samples(result):
    found = figure(result, "memory.pss_bytes", "host")
    numbers = values(result, "pss_bytes", "host")
    assert len(numbers) == 32
    assert found.value == standard.median(numbers)
    assert found.minimum == min(numbers)
    assert found.low < found.value < found.high
    assert found.outliers == sum(statistics.outliers(numbers)) > 0
    assert (found.observations, found.failures, found.why) == (32, 0, "")
    assert found.p5 is found.p95 is None  # fewer than 100 observations


def test_warm_ups_do_not_count(result):
    warm_up = next(one for one in result.samples if one.round < 1 and one.kind == "start")
    slow = replaced(warm_up, values=dict.fromkeys(warm_up.values, 1e15), marks_ns={})
    changed = finished(result, samples=tuple(slow if one is warm_up else one for one in result.samples))
    assert (changed.figures, changed.ratios) == (result.figures, result.ratios)


def test_a_failed_sample_is_counted_and_not_looked_at(result):
    found = figure(result, "boot.answer_s", "vm")
    assert (found.observations, found.failures) == (30, 2)
    assert found.low is not None
    assert ratio(result, "boot.answer_s", "vm", "host").low is not None


def test_fewer_than_thirty_have_no_interval_and_a_reason():
    few = make(runs=29)
    found = figure(few, "boot.answer_s", "host")
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert found.why == "an interval needs 30 rounds, there are 29"
    assert ratio(few, "boot.answer_s", "container", "host").verdict == "few"


def test_a_hundred_have_percentiles():
    found = figure(make(runs=100, metrics=("boot",)), "boot.answer_s", "host")
    assert found.minimum < found.p5 < found.value < found.p95


def test_what_a_mode_does_not_have_is_no_failure(result):
    samples = tuple(
        replaced(one, values={k: v for k, v in one.values.items() if k != "pss_qemu_bytes"})
        if one.mode == "host"
        else one
        for one in result.samples
    )
    found = figure(finished(result, samples=samples), "memory.pss_qemu_bytes", "host")
    assert (found.value, found.observations, found.failures) == (None, 0, 0)
    assert found.why == "not observed in this mode"


def test_a_failure_always_has_a_reason(result):
    steps = {(one.kind, one.mode, one.round): one for one in result.plan.steps}
    samples = tuple(
        failed(one, steps[one.kind, one.mode, one.round]) if one.mode == "vm" else one for one in result.samples
    )
    broken = finished(result, samples=samples)
    found = figure(broken, "boot.answer_s", "vm")
    assert (found.value, found.failures) == (None, 32)
    assert "was not ready within" in found.why
    assert {(one.mode, one.base) for one in broken.ratios} == {("container", "host")}


def test_what_was_not_taken_is_missing(result):
    left = tuple(one for one in result.samples if one.mode != "vm")
    assert figure(finished(result, samples=left), "boot.answer_s", "vm").why == "not measured"


def test_ratios_are_those_of_the_rounds_that_both_have(result):
    found = ratio(result, "boot.answer_s", "vm", "host")
    seconds = {
        mode: {one.round: one.between_s("T0", "T6") for one in result.of("start", mode) if one.error is None}
        for mode in ("vm", "host")
    }
    common = sorted(set(seconds["vm"]) & set(seconds["host"]))
    assert len(common) == 30
    medians = [standard.median(seconds[mode][number] for number in common) for mode in ("vm", "host")]
    assert found.ratio == pytest.approx(medians[0] / medians[1])
    assert found.low < found.ratio < found.high
    assert (found.delta, found.verdict) == (1.0, "more")


def test_each_pair_of_modes_is_there_once(result):
    pairs = [(one.mode, one.base) for one in result.ratios if one.key == "boot.answer_s"]
    assert pairs == [("container", "host"), ("vm", "host"), ("vm", "container")]


def test_a_slope_is_that_of_the_ladders(result):
    found = figure(result, "memory.marginal_bytes", "vm")
    ladders = [one.series["available_bytes"] for one in result.of("ladder", "vm") if one.error is None]
    points = [[(number, each[0] - value) for number, value in enumerate(each)] for each in ladders]
    assert found.value == pytest.approx(statistics.slope(points))
    assert found.value == pytest.approx(bench_results.SIZES["vm"], rel=0.1)
    assert found.low < found.value < found.high
    assert found.observations == sum(map(len, points))
    assert ratio(result, "memory.marginal_bytes", "vm", "host").verdict == "more"


def test_nothing_is_divided_by_nothing(result):
    samples = tuple(
        replaced(one, values={**one.values, "disk_bytes": 0.0, "kernel_bytes": -4096.0}) if one.mode == "host" else one
        for one in result.samples
    )
    changed = finished(result, samples=samples)
    assert figure(changed, "disk.own_bytes", "host").value == 0
    assert ratio(changed, "disk.own_bytes", "vm", "host") is None
    assert ratio(changed, "memory.kernel_bytes", "vm", "host") is None
    assert ratio(changed, "disk.own_bytes", "vm", "container") is not None


def test_the_same_samples_give_the_same_figures_in_another_process(result, tmp_path):
    from bench import result as results

    results.write(result, str(tmp_path))
    script = (
        "import sys; from bench import result, summary; found = result.read(sys.argv[1]);"
        "print(summary.summarise(found.plan, found.samples) == (found.figures, found.ratios))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_another_seed_has_another_interval_and_the_same_median(result):
    changed = finished(result, plan=replaced(result.plan, seed=result.plan.seed + 1))
    first, second = figure(result, "boot.answer_s", "host"), figure(changed, "boot.answer_s", "host")
    assert first.value == second.value
    assert (first.low, first.high) != (second.low, second.high)


# A guest that is faster than the disk of its host


def of_disk(times, accelerator):
    """Return a result whose guests take `times` as long as the host for a durable write."""
    made = make(metrics=("io",), faults=False)
    question = next(one for _, one in questions.asked(("io",), service=True) if one.statistic == "median")
    kind = "io"

    def sample(one):
        if one.kind != kind:
            return one
        # the values of each question: the same number for all of them, times the factor of the mode
        middle = 100.0 * (times if one.mode == "vm" else 1.0) * (1 + one.round / 1e4)
        texts = {"accelerator": accelerator} if accelerator and one.mode == "vm" else {}
        return replaced(one, values=dict.fromkeys(one.values, middle), texts=texts)

    return finished(made, samples=tuple(map(sample, made.samples))), question


@pytest.mark.parametrize(
    ("faster", "accelerator", "invalid"),
    [(1.2, "tcg", True), (1.02, "tcg", False), (0.5, "kvm", False), (1.2, "", False)],
)
def test_a_guest_that_beats_its_hosts_disk_is_called_invalid(faster, accelerator, invalid):
    question = next(one for _, one in questions.asked(("io",), service=True) if one.statistic == "median")
    times = 1 / faster if question.less_is_better else faster
    found, question = of_disk(times, accelerator)
    assert (ratio(found, question.key, "vm", "host").verdict == "invalid") == invalid
    assert ratio(found, question.key, "container", "host").verdict == "equal"
