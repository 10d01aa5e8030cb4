"""The disk's probe against the bytes that the host has allocated, and its errors when fio fails."""

import json
import os

import pytest
from support.probes import started

from bench.probes import Request, io
from bench.probes.lines import follow, spans
from vmctl import backends
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.linux import filetree
from vmctl.spec.workload import Bytes, Resources, Workload

MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
KEYS = {question.key.partition(".")[2] for question in io.QUESTIONS}
SMALL_BYTES = 1024**2  # metadata, logs and the JSON


@pytest.fixture
def work(own_root):
    return io.prepare(Workload(name=f"io-{os.urandom(3).hex()}", image="tiny"))


def said(name, reads, writes, error=0):
    """Return lines as fio writes them: notes first."""
    job = {"read": {"total_ios": reads}, "write": {"total_ios": writes}, "error": error}
    return [f"json {name}", 'note: "fio"', *json.dumps({"jobs": [job]}, indent=2).splitlines()]


@EACH_QUICK_MODE
def test_every_question_gets_an_answer(work, mode):
    seen = io.observe(Request(work, "io-sample", mode))
    assert set(seen.values) > KEYS
    assert all(seen.values[key] > 0 for key in KEYS)
    assert io.FILE_BYTES <= seen.values["allocated_bytes"] < io.FILE_BYTES + SMALL_BYTES
    assert seen.texts["cache"].startswith(("O_DIRECT", "through the page cache"))
    assert instance.names() == []


@EACH_QUICK_MODE
def test_the_writes_are_on_the_writable_layer(work, mode):
    """The file that fio reports to have written exists, with every byte allocated."""
    with started(io.disked(work, ["durable"]), mode) as start:
        inst = start.inst
        found = follow(start.watch, "done", 60.0)
        with backends.load(mode).writable(inst, pause=False) as writable:
            path = os.path.join(writable.folder, "bench.io")
            assert os.stat(path).st_size == io.FILE_BYTES
            assert io.FILE_BYTES <= filetree.allocated_bytes(path) < io.FILE_BYTES + SMALL_BYTES
            with open(os.path.join(writable.folder, "durable.json"), encoding="utf-8") as file:
                text = file.read()
    job = json.loads(text[text.index("{") :])["jobs"][0]
    assert io.operations([line for _, line in found]) == {"durable": job["write"]["total_ios"]}
    assert job["sync"]["lat_ns"]["N"] >= job["write"]["total_ios"] - 1  # each write was followed by a sync
    assert job["write"]["io_bytes"] == 4096 * job["write"]["total_ios"]
    span_s, own_s = spans(found)["durable"].seconds, job["write"]["runtime"] / 1000
    assert own_s >= io.JOB_MS / 1000
    assert own_s - 0.05 < span_s < own_s * 2 + 1  # not in a guest: fio uses the host's clock


def test_operations_are_counted_per_job():
    lines = ["direct 1", "begin a", "end a", *said("a", 3, 4), "begin b", "end b", *said("b", 0, 9), "done"]
    assert io.operations(lines) == {"a": 7, "b": 9}


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["json a", "{", "not json", "}"], "fio's report on its job a cannot be read"),
        (["json a", "{", "}"], "fio's report on its job a cannot be read"),
        (["json a", *said("a", 5, 0)[1:-3]], "fio's report on its job a cannot be read"),
        (said("a", 5, 5, error=28), "fio's job a ended with error 28 after 10 operations"),
        (said("a", 0, 0), "fio's job a ended with error 0 after 0 operations"),
    ],
)
def test_what_fio_did_not_do_is_no_figure(lines, text):
    with pytest.raises(VmctlError, match=text):
        io.operations(lines)


def test_an_image_without_fio(work):
    with pytest.raises(VmctlError, match=r"ended with code 127 .* before it wrote 'done'") as caught:
        io.observe(Request(work._replace(image="tiny"), "io-without", "container"))
    assert "fio: not found" in caught.value.detail
    assert instance.names() == []


def test_a_job_that_fio_refuses(work, monkeypatch):
    monkeypatch.setitem(io.JOBS, "read_qd1", "--rw=nonsense")
    with pytest.raises(VmctlError, match="before it wrote 'done'") as caught:
        io.observe(Request(io.disked(work, ["read_qd1"]), "io-refused", "container"))
    assert "nonsense" in caught.value.detail
    assert instance.names() == []


def test_an_image_that_cannot_be_built(own_root, monkeypatch):
    monkeypatch.setattr(io, "RECIPE", "absent-recipe")
    with pytest.raises(VmctlError, match=r"the image with fio cannot be built: .*absent-recipe"):
        io.prepare(Workload(name="io", image="tiny"))


@pytest.mark.long
def test_a_guest_answers_and_its_drives_cache_is_named(guest_root):
    mode = next(mode for mode in MODES if backends.load(mode).features.own_kernel)
    work = io.prepare(Workload(name="io", image="tiny", resources=Resources(memory_bytes=Bytes(256 * 1024**2))))
    seen = io.observe(Request(work, "io-guest", mode))
    assert set(seen.values) > KEYS
    assert seen.values["allocated_bytes"] >= io.FILE_BYTES
    assert "the drive's cache: " in seen.texts["cache"]
