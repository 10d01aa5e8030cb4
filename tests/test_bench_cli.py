"""`vmctl bench` on the command line: its output, the files of its results, and the actions that read them."""

import json
import os

import pytest
from support.commands import free_port, ok, refused, vmctl

from bench import result
from vmctl import paths
from vmctl.instances import instance

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the modes need root here")

PORT = free_port()  # a port of the host in mode host
PAGE = f"""
image: tiny
command: [httpd, -f, -p, '{PORT}', -h, /srv]
files: [{{path: /srv/index.html, content: '<p>same</p>'}}]
ready: {{http: '{PORT}/'}}
"""


@pytest.fixture(scope="module")
def folder(guest_root, tmp_path_factory):
    """A small measurement of a page in all modes, and its output."""
    place = tmp_path_factory.mktemp("bench")
    (place / "page.yaml").write_text(PAGE)
    words = ("bench", str(place / "page.yaml"), "--runs", "1", "--metrics", "boot,teardown", "--seed", "5")
    said = vmctl(*words, "--out", str(place / "out"), timeout_s=280)
    assert said.code == 0, said
    (place / "out/stdout").write_text(said.out)
    (place / "out/stderr").write_text(said.err)
    assert instance.names() == []
    return place / "out"


def test_the_table_is_data_and_the_rest_is_not(folder):
    lines = (folder / "stdout").read_text().splitlines()
    assert lines[0].split()[:2] == ["HOST", "CONTAINER"]
    rows = {line[:24].strip(): line for line in lines[1:]}
    assert "ms" in rows["start to first answer"]
    assert rows["its page"].count("<p>same</p>") == 3
    said = (folder / "stderr").read_text()
    assert "The image is the same in every mode" in said
    assert "The page is the same in every mode" in said
    assert "no interval is given" in said
    assert "seed 5" in said
    assert f"{folder}/report.html" in said


def test_the_first_answer_of_a_guest_comes_from_its_own_kernel(folder):
    done = result.read(str(folder))
    kernels = {one.mode: one.texts["kernel"] for one in done.samples if "kernel" in one.texts}
    assert kernels["host"] == kernels["container"] == os.uname().release != kernels["vm"]
    codes = {one.texts["exit_code"] for one in done.samples if "exit_code" in one.texts}
    assert codes == {"7"}


def test_everything_is_there_for_whoever_reads_it(folder):
    names = {"plan.json", "samples.jsonl", "result.json", "samples.csv", "report.md", "hyperfine.json", "report.html"}
    assert names <= set(os.listdir(folder))
    assert "start to first answer" in (folder / "report.md").read_text()
    assert "<p>" not in (folder / "report.md").read_text()  # the text of a page must not become markup of the report
    assert len(json.loads((folder / "hyperfine.json").read_text())["results"]) == 3


def test_what_was_measured_verifies_and_what_was_changed_does_not(folder, tmp_path):
    assert vmctl("bench", "verify", str(folder)).code == 0
    document = json.loads((folder / "result.json").read_text())
    document["figures"][0]["value"] += 0.001
    (tmp_path / "result.json").write_text(json.dumps(document))
    changed = vmctl("bench", "verify", str(tmp_path))
    assert changed.code == 1
    assert document["figures"][0]["key"] in changed.out + changed.err


def test_a_result_compared_with_itself_shows_no_difference(folder):
    assert ok("bench", "compare", str(folder), str(folder), "--format", "json")


def test_without_a_folder_it_is_kept_where_the_history_finds_it(guest_root, tmp_path):
    (tmp_path / "echo.yaml").write_text("image: tiny\ncommand: [echo, now]\n")
    assert ok("bench", "history", "echo", "--format", "json") == "[]\n"
    ok("bench", str(tmp_path / "echo.yaml"), "--modes", "host,container", "--runs", "1", "--metrics", "boot")
    (kept,) = os.listdir(os.path.join(paths.state_root(), "bench"))
    assert kept.startswith("echo-")
    assert "echo" in ok("bench", "history", "echo")


def test_one_of_the_modes_giving_nothing_is_a_failure(guest_root, tmp_path):
    (tmp_path / "bad.yaml").write_text("image: tiny\ncommand: ['false']\nready: {log: never}\n")
    words = ("bench", str(tmp_path / "bad.yaml"), "--modes", "container", "--runs", "1", "--metrics", "boot")
    said = vmctl(*words, "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert "Failed, start container, round 1" in said.err
    assert "already contains a measurement" in refused(*words, "--out", str(tmp_path / "out"))


def test_json_is_the_result_itself(guest_root, tmp_path):
    (tmp_path / "echo.yaml").write_text("image: tiny\ncommand: [echo, now]\n")
    words = ("bench", str(tmp_path / "echo.yaml"), "--modes", "host", "--runs", "1", "--metrics", "boot")
    said = ok(*words, "--out", str(tmp_path / "out"), "--format", "json")
    assert json.loads(said) == json.loads((tmp_path / "out/result.json").read_text())


def test_the_schema_is_printed():
    assert json.loads(ok("bench", "schema"))["$defs"]["Sample"]
