"""A result in other formats: the CSV has every observation, the JSON is like hyperfine's own."""

import csv
import io
import json
import os
import re
import statistics
import subprocess

import pytest
from support.bench_results import make, replaced
from support.commands import VMCTL, ok, refused, vmctl

from bench import export
from bench import result as results
from bench.model import Sample
from bench.report import words
from vmctl.errors import SpecError


@pytest.fixture(scope="module")
def result():
    return make()


def rows(result):
    return list(csv.DictReader(io.StringIO(export.samples_csv(result))))


def test_every_observation_is_a_row(result):
    found = [
        (r["kind"], r["mode"], int(r["round"]), r["name"], r["position"], float(r["value"]))
        for r in rows(result)
        if r["name"]
    ]
    wanted = []
    for one in result.samples:
        for name, value in {**one.marks_ns, **one.values}.items():
            wanted.append((one.kind, one.mode, one.round, name, "", float(value)))
        for name, numbers in one.series.items():
            wanted += [(one.kind, one.mode, one.round, name, str(n), value) for n, value in enumerate(numbers)]
    assert len(wanted) > 500
    assert found == wanted


def test_a_failure_has_its_reason_and_no_value(result):
    failed = [row for row in rows(result) if row["error"]]
    assert [row["error"] for row in failed] == [one.error for one in result.samples if one.error]
    assert failed
    assert all(row["value"] == "" and row["counts"] == "false" for row in failed)


def test_a_spreadsheet_computes_nothing():
    sample = Sample(kind="start", mode="vm", round=1, started=0.0, error='=HYPERLINK("http://x","y")\nsecond, line')
    (row,) = rows(replaced(make(runs=2), samples=(sample,)))
    assert row["error"] == '\'=HYPERLINK("http://x","y")\nsecond, line'


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("work_s", "s"),
        ("T0_ns", "ns"),
        ("pss_bytes", "bytes"),
        ("read_bytes_per_s", "bytes/s"),
        ("calls_per_s", "1/s"),
        ("instances", "count"),
    ],
)
def test_units_are_in_the_names(name, unit):
    assert export.unit_of(name) == unit


def test_markdown_has_every_figure(result):
    text = export.markdown(result)
    for _, question in words.asked(result):
        assert question.title.strip() in text
    assert "VM (TCG, emulated)" in text
    assert "2 failed" in text
    assert "was not ready within 60.0 s; the last phase was: kernel &lt;6.1>" in text
    assert "too little memory for 5 guests" in text


def test_a_markdown_cell_stays_a_cell():
    lines = export.markdown_table(("a|b", "c"), [("<b>|\nx", "y")])
    assert lines == ["| a\\|b | c |", "| --- | --- |", "| &lt;b>\\| x | y |"]


def test_hyperfine_numbers_are_those_of_the_samples(result):
    found = json.loads(export.hyperfine(result))["results"]
    assert len(found) == len(result.plan.modes)
    for mode, one in zip(result.plan.modes, found, strict=True):
        assert f"--mode {mode} " in one["command"]
        times = [s.between_s("T0", "T6") for s in result.of("start", mode) if s.counts]
        assert one["times"] == times
        assert len(one["exit_codes"]) == len(times)
        assert one["median"] == statistics.median(times)
        assert (one["min"], one["max"]) == (min(times), max(times))
        assert one["mean"] == pytest.approx(sum(times) / len(times))


def test_hyperfine_itself_writes_the_same_fields(result, tmp_path):
    path = tmp_path / "theirs.json"
    subprocess.run(["hyperfine", "-N", "--runs", "3", "--export-json", path, "true"], check=True, capture_output=True)
    theirs, ours = json.loads(path.read_text()), json.loads(export.hyperfine(result))
    assert list(ours) == list(theirs)
    assert list(ours["results"][0]) == [name for name in theirs["results"][0] if name in ours["results"][0]]
    assert set(theirs["results"][0]) - set(ours["results"][0]) <= {"memory_usage_byte", "parameters"}


def test_one_run_has_no_deviation():
    (first, *_) = json.loads(export.hyperfine(make(runs=1, faults=False)))["results"]
    assert first["stddev"] is None
    assert len(first["times"]) == 1


def test_without_a_start_there_is_nothing_for_hyperfine():
    with pytest.raises(SpecError, match="no start times"):
        export.hyperfine(make(runs=2, metrics=("disk",)))


# The command


@pytest.fixture
def folder(result, tmp_path):
    results.write(result, str(tmp_path / "out"))
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("form", "name", "writer"),
    [
        ("md", "report.md", export.markdown),
        ("csv", "samples.csv", export.samples_csv),
        ("hyperfine", "hyperfine.json", export.hyperfine),
    ],
)
def test_the_command_writes_next_to_the_result(result, folder, form, name, writer):
    path = folder / name
    assert ok("bench", "report", str(folder), "--format", form).strip() == str(path)
    with open(path, newline="") as file:
        assert file.read() == writer(result)
    said = ok("bench", "report", str(folder / "result.json"), "--format", form, "--out", "-")
    assert said.splitlines() == writer(result).splitlines()


def test_the_result_itself_is_not_overwritten(folder):
    content = (folder / "result.json").read_bytes()
    assert "is the result itself" in refused("bench", "report", str(folder), "--out", str(folder / "result.json"))
    assert (folder / "result.json").read_bytes() == content


def test_the_command_refuses_what_is_no_result(tmp_path):
    assert re.search("cannot be read", refused("bench", "report", str(tmp_path / "nowhere.json")))
    (tmp_path / "result.json").write_text("{")
    refused("bench", "report", str(tmp_path))


def test_the_command_names_the_file_that_it_cannot_write(folder):
    said = refused("bench", "report", str(folder), "--format", "csv", "--out", str(folder / "no" / "such.csv"))
    assert "such.csv: No such file or directory" in said


def test_a_report_on_stdout_is_the_file_whatever_the_locale(tmp_path):
    done = make(metrics=("boot", "teardown"))
    results.write(done, str(tmp_path))
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [VMCTL, "bench", "report", str(tmp_path), "--format", "md", "--out", "-"]
    assert subprocess.run(words, capture_output=True, env=env, check=True).stdout == export.markdown(done).encode()
    said = vmctl("bench", "compare", str(tmp_path), str(tmp_path), env=env)
    assert (said.code, " \\xb5s " in said.out) == (0, True), said
