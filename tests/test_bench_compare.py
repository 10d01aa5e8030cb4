"""`bench compare`: changes from one result to another, and results that may not be compared."""

import json

import pytest
from support.bench_results import finished, make, replaced
from support.commands import ok, refused, vmctl

from bench import compare
from bench import result as results
from bench.compare import left_out
from bench.model import CONTROL
from vmctl.errors import SpecError


@pytest.fixture(scope="module")
def before():
    return make(seed=1)


@pytest.fixture(scope="module")
def after():
    return make(seed=2)


def with_host(result, **facts):
    return replaced(result, host={**result.host, **facts})


def with_accelerator(result, name):
    def sample(one):
        return replaced(one, texts={**one.texts, "accelerator": name}) if one.mode == "vm" else one

    return finished(result, samples=tuple(map(sample, result.samples)))


def change(changes, key, mode, base=""):
    return next(one for one in changes if (one.key, one.mode, one.base) == (key, mode, base))


def write(tmp_path, *found):
    """Return a folder for each result."""
    folders = [str(tmp_path / str(number)) for number in range(len(found))]
    for one, folder in zip(found, folders, strict=True):
        results.write(one, folder)
    return folders


def test_two_runs_of_the_same_agree(before, after):
    changes = [one for one in compare.compare(before, after) if one.verdict != "few"]
    assert len(changes) > 50
    different = [one for one in changes if one.verdict in ("more", "less")]
    assert len(different) <= 0.1 * len(changes), different  # 5 % of each are expected


def test_a_change_is_found_in_every_figure(before):
    for one in compare.compare(before, make(seed=3, factor=1.2)):
        assert one.verdict in ("more", "few"), one
        if one.verdict == "more":
            assert 1 < one.low < one.ratio < one.high
            assert one.ratio == pytest.approx(1.2, rel=0.06)
            assert one.ratio == one.after / one.before


def test_what_has_become_less(before):
    found = change(compare.compare(before, make(seed=3, factor=0.5)), "boot.answer_s", "host")
    assert found.verdict == "less"
    assert found.delta == -1.0
    assert found.less_is_better


def test_slopes_are_compared_too(before):
    found = change(compare.compare(before, make(seed=3, factor=1.5)), "memory.marginal_bytes", "vm")
    assert found.verdict == "more"
    assert found.delta is None
    assert found.low < 1.5 < found.high


def test_both_ways_are_each_others_inverse(before, after):
    there, back = compare.compare(before, after), compare.compare(after, before)
    for one, other in zip(there, back, strict=True):
        assert one.ratio == pytest.approx(1 / other.ratio)


def test_it_depends_on_the_results_alone(before, after):
    assert compare.compare(before, after) == compare.compare(before, after)


# What may not be compared


def test_another_host_is_refused_but_for_ratios(before):
    other = with_host(make(seed=3, factor=1.5), id="other", cpu="Another CPU")
    with pytest.raises(SpecError, match=r"different hosts: Example CPU @ 2.* and Another CPU") as caught:
        compare.compare(before, other)
    assert "--ratios" in caught.value.hint
    changes = compare.compare(before, other, ratios=True)
    assert {(one.mode, one.base) for one in changes} == {("container", "host"), ("vm", "host"), ("vm", "container")}
    found = change(changes, "boot.answer_s", "vm", "host")
    assert found.ratio == pytest.approx(1.0, abs=0.05)  # a host slower by half, and the same ratio
    assert found.low < 1 < found.high
    assert found.before == pytest.approx(25, rel=0.2)
    assert found.unit == "ratio"


def test_a_host_that_nobody_knows_is_another_one(before):
    nameless = replaced(before, host={})
    with pytest.raises(SpecError, match="different hosts"):
        compare.compare(nameless, nameless)


def test_a_change_of_one_mode_is_one_of_its_ratios(before):
    slow = make(seed=4)

    def sample(one):
        if one.mode != "vm" or not one.marks_ns:
            return one
        marks = {name: at + (10**9 if name not in ("T0", "T1") else 0) for name, at in one.marks_ns.items()}
        return replaced(one, marks_ns=marks)

    slow = finished(slow, samples=tuple(map(sample, slow.samples)))
    changes = compare.compare(before, slow, ratios=True)
    assert change(changes, "boot.answer_s", "vm", "host").verdict == "more"
    assert change(changes, "boot.answer_s", "container", "host").verdict in ("equal", "undecided", "small")


# The control


def with_control(result, factor):
    """Return the result of a machine on which the control takes `times` times as long."""

    def sample(one):
        values = {name: value * factor for name, value in one.values.items()}
        return replaced(one, values=values) if one.kind == CONTROL else one

    return finished(result, samples=tuple(map(sample, result.samples)))


def test_a_control_that_stays_is_not_spoken_of(before, after):
    found = compare.control(before, after)
    assert (found.mode, found.unit) == ("", "s")
    assert found.verdict in ("equal", "small", "undecided")
    assert compare.moved(found) == ""


@pytest.mark.parametrize("factor", [1.3, 0.7])
def test_a_control_that_has_changed_is_the_machine(before, after, factor, tmp_path):
    found = compare.control(before, with_control(after, factor))
    assert found.verdict == ("more" if factor > 1 else "less")
    assert f"{found.ratio:.3g} times as long" in compare.moved(found)
    folders = write(tmp_path, before, with_control(after, factor))
    said = vmctl("bench", "compare", *folders)
    assert "the machine was not in the same state both times" in said.err
    assert "the control: fixed work as a plain process" in said.out
    listed = json.loads(ok("bench", "compare", *folders, "--format", "json"))
    assert [one["mode"] for one in listed if one["key"] == "control.work_s"] == [""]
    assert "control" not in ok("bench", "compare", "--ratios", *folders)


def test_a_control_of_few_rounds_is_spoken_of_with_care():
    few, slow = make(runs=5, seed=1), with_control(make(runs=5, seed=2), 1.5)
    assert "too few rounds to be sure" in compare.moved(compare.control(few, slow))
    assert compare.moved(compare.control(few, few)) == ""


def test_results_without_a_control_are_compared_all_the_same(before):
    """Results with only `--metrics density` have no control."""
    none = make(metrics=("density",))
    assert compare.control(before, none) is None
    assert compare.control(none, none) is None


@pytest.mark.parametrize("ratios", [False, True])
def test_emulated_and_virtualised_guests_never_meet(before, after, ratios):
    with pytest.raises(SpecError, match="accelerator is tcg, the second's kvm"):
        compare.compare(before, with_accelerator(after, "kvm"), ratios=ratios)


@pytest.mark.parametrize("ratios", [False, True])
def test_cold_and_warm_never_meet(before, after, ratios):
    with pytest.raises(SpecError, match="cold"):
        compare.compare(before, replaced(after, plan=replaced(after.plan, cold=True)), ratios=ratios)


def test_another_workload_is_refused_unless_it_is_wanted(before, after):
    changed = {**after.plan.workload, "workdir": "/other"}
    other = replaced(after, plan=replaced(after.plan, workload=changed, workload_digest="sha256:other"))
    with pytest.raises(SpecError, match="different workloads: web and web, which changed in between"):
        compare.compare(before, other)
    assert compare.compare(before, other, other_workload=True)


def test_one_workload_under_the_digest_of_another_version(before, after):
    """vmctl 0.1 computed digests in another way: what counts is the workload that both results contain."""
    old = replaced(before, plan=replaced(before.plan, workload_digest="sha256:old"))
    assert compare.compare(old, after)


def test_no_mode_in_common(before):
    with pytest.raises(SpecError, match="no mode in common"):
        compare.compare(make(modes=("host",), metrics=("boot",)), make(modes=("vm",), metrics=("boot",)))


def test_what_only_one_has_is_named(before):
    less = make(modes=("host", "vm"), metrics=("boot", "density"))
    more = replaced(before, plan=replaced(before.plan, instances=9))
    changes = compare.compare(more, less)
    assert {one.mode for one in changes} == {"host", "vm"}
    assert {one.key.partition(".")[0] for one in changes} == {"boot"}
    said = left_out(more, less)
    assert "the second result has no mode container" in said
    assert "the second result does not have the metric memory" in said
    assert "density is left out: the first result has 9 instances, the second 5" in said


# The command


def test_the_command(before, tmp_path):
    folders = write(tmp_path, before, make(seed=3, factor=1.2))
    done = vmctl("bench", "compare", *folders)
    assert done.code == 0
    assert done.out.splitlines()[0].split() == ["WHAT", "MODE", "BEFORE", "AFTER", "CHANGE", "VERDICT"]
    line = next(line for line in done.out.splitlines() if line.startswith("start to first answer") and " vm " in line)
    assert line.endswith("more")
    assert "1.2" in line
    assert "95 % interval" in done.err
    rows = json.loads(ok("bench", "compare", "--format", "json", *folders))
    keys = [one.key for one in compare.compare(before, make(seed=3, factor=1.2))]
    assert [row["key"] for row in rows] == [*keys, "control.work_s"]
    assert {"low", "high", "verdict", "delta", "before", "after"} <= set(rows[0])


def test_the_command_refuses_with_a_hint(before, after, tmp_path):
    folders = write(tmp_path, before, with_host(after, id="other"))
    cpu = before.host["cpu"]
    assert f"{cpu} ({before.host['id']}) and {cpu} (other)" in refused("bench", "compare", *folders)
    assert "hint: `--ratios` compares the ratios" in refused("bench", "compare", *folders)
    assert "vm/host" in ok("bench", "compare", "--ratios", *folders)


def test_two_results_without_a_figure_in_common(tmp_path):
    some = make(modes=("host", "container"), metrics=("boot",))
    done = vmctl("bench", "compare", *write(tmp_path, some, finished(some, samples=())))
    assert (done.code, done.out) == (0, "")
    assert "the two results have no figure in common" in done.err


def test_the_command_refuses_another_version(before, tmp_path):
    folders = write(tmp_path, before, replaced(before, format="vmctl bench 1"))
    assert "is not a result of this version" in refused("bench", "compare", *folders)
