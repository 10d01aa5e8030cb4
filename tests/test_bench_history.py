"""`bench history`: the results of a workload from any folders, oldest first."""

import json

import pytest
from support.bench_results import make, replaced
from support.commands import ok, refused, vmctl

from bench import history
from bench import result as results

METRICS = ("boot", "teardown")


def put(folder, *found):
    for one in found:
        results.write(one, str(folder / f"{one.plan.workload['name']}-{one.id}"))
    return [str(folder)]


@pytest.fixture
def three(empty_root, tmp_path):
    """Three results in a folder, the second one twice as slow."""
    found = [make(seed=number, factor=factor, metrics=METRICS) for number, factor in ((1, 1.0), (2, 2.0), (3, 2.0))]
    return found, put(tmp_path / "kept", *reversed(found))


def of(entries, key="boot.answer_s", mode="host"):
    return [one for one in entries if (one.key, one.mode) == (key, mode)]


def test_oldest_first_each_against_the_one_before(three):
    found, folders = three
    entries = of(history.entries(history.find(folders).results))
    assert [one.created for one in entries] == [one.created for one in found]
    assert [one.verdict in ("more", "less") for one in entries] == [False, True, False]
    assert entries[0].change is None
    assert entries[1].low < 2 < entries[1].high
    assert entries[1].value == next(
        one.value for one in found[1].figures if (one.key, one.mode) == ("boot.answer_s", "host")
    )


def test_only_headlines(three):
    entries = history.entries(history.find(three[1]).results)
    assert {one.key for one in entries} == {"boot.answer_s", "teardown.removal_s"}
    assert {one.accelerator for one in of(entries, mode="vm")} == {"tcg"}
    assert {one.accelerator for one in of(entries)} == {""}


@pytest.mark.parametrize("difference", ["host", "workload", "cold"])
def test_only_what_is_alike_is_compared(empty_root, tmp_path, difference):
    first, second, third = (make(seed=number, metrics=METRICS) for number in (1, 2, 3))
    if difference == "host":
        second = replaced(second, host={**second.host, "id": "other"})
    elif difference == "workload":
        changed = {**second.plan.workload, "workdir": "/other"}
        second = replaced(second, plan=replaced(second.plan, workload=changed, workload_digest="other"))
    else:
        second = replaced(second, plan=replaced(second.plan, cold=True))
    entries = of(history.entries(history.find(put(tmp_path / "kept", first, second, third)).results))
    assert [one.change is None for one in entries] == [True, True, False]  # the third is compared with the first


def test_workloads_are_apart(empty_root, tmp_path):
    web, other = make(seed=1, metrics=METRICS), make(seed=2, metrics=METRICS)
    other = replaced(other, plan=replaced(other.plan, workload={**other.plan.workload, "name": "other"}))
    found = history.find(put(tmp_path / "kept", web, other)).results
    assert len(found) == 2
    assert {one.workload for one in history.entries(found)} == {"web", "other"}
    assert {one.workload for one in history.entries(found, "other")} == {"other"}
    assert history.entries(found, "none") == []


def test_what_vmctl_keeps_itself_is_found(empty_root):
    kept = make(seed=1, metrics=METRICS)
    results.write(kept, f"{history.root()}/web-20260101T000000-{kept.id}")
    assert [one.id for _, one in history.find().results] == [kept.id]


def test_a_copy_counts_once(three, tmp_path):
    found, folders = three
    put(tmp_path / "again", *found)
    assert len(history.find([*folders, str(tmp_path / "again")]).results) == 3


def test_a_folder_that_is_a_result_itself(three, tmp_path):
    folder = f"{three[1][0]}/web-{three[0][0].id}"
    assert len(history.find([folder]).results) == 1


def test_what_is_damaged_is_named_and_left_out(three, tmp_path):
    broken = tmp_path / "kept" / "broken"
    broken.mkdir()
    (broken / "result.json").write_text('{"format": "vmctl bench 2", "id"')
    found = history.find(three[1])
    assert len(found.results) == 3
    assert len(found.damaged) == 1
    done = vmctl("bench", "history", *three[1])
    assert done.code == 0
    assert f"left out: {broken}/result.json is damaged" in done.err
    assert done.out.count("start to first answer") == 9


# The command


def test_no_result_yet(empty_root):
    done = vmctl("bench", "history")
    assert (done.code, done.out) == (0, "")
    assert f"no result in {history.root()}" in done.err
    assert json.loads(ok("bench", "history", "web", "--format", "json")) == []


def test_the_command(three, tmp_path):
    lines = ok("bench", "history", "web", *three[1]).splitlines()
    assert lines[0].split() == ["WHEN", "WHAT", "MODE", "VALUE", "CHANGE", "VERDICT", "HOST", "ACCELERATOR"]
    assert len(lines) == 1 + 3 * 3 * 2
    rows = json.loads(ok("bench", "history", "--format", "json", *three[1]))
    assert len(rows) == 3 * 3 * 2
    done = vmctl("bench", "history", "wbe", *three[1])
    assert (done.code, done.out) == (0, "")
    assert "results exist of web" in done.err
    spec = tmp_path / "web.yaml"
    spec.write_text("image: tiny\ncommand: [sleep, '1']\n")
    assert ok("bench", "history", str(spec), *three[1]).splitlines() == lines


def test_a_folder_that_is_none(empty_root):
    assert "the folder /nowhere does not exist" in refused("bench", "history", "web", "/nowhere")
