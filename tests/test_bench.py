"""The benches: what they say of workloads whose truth is known, of modes that are missing, and of failures."""

import json
import os
import signal
import statistics
import subprocess

import pytest
from commands import VMCTL, ok, refused, vmctl, wait_for

from bench import comparison, results, table
from bench.peers import claims, containers, guests
from bench.peers.root import shared_root
from bench.peers.study import Study, study
from bench.statistics import ENOUGH, median_interval, ratio, ratio_interval
from vmctl import instance
from vmctl.errors import SpecError, UnavailableError, VmctlError
from vmctl.workload import File, HttpProbe, Ready, Workload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")

SPOKEN = Workload(name="spoken", image="tiny", command=("sh", "-c", "sleep 0.3; echo now; exit 3"))
PAGE = Workload(
    name="page",
    image="tiny",
    command=("httpd", "-f", "-p", "8123", "-h", "/srv"),
    files=(File("/srv/index.html", "<p>same</p>"),),
    ready=Ready(http=HttpProbe(8123)),
)


def silent(_):
    pass


def compare(work, modes, runs, **options):
    return comparison.compare(work, modes, runs, 1, silent, **options)


@pytest.fixture(scope="module")
def page(guest_root):
    """The bench of a page in two modes, and that nothing of it stayed."""
    done = compare(PAGE, ["host", "container"], 2)
    assert instance.names() == []
    return done


def test_a_service_is_measured_from_start_to_answer_to_removal(page):
    assert [sample.error for sample in page.samples] == [None] * 6
    for sample in page.samples:
        assert sample.between_s("T0", "T6") > 0
        assert sample.between_s("T7", "T9") > 0
        assert sample.pss_bytes > 0
        assert sample.disk_bytes > 0
        assert sample.shared_disk_bytes > 1024**2
    assert [len(page.of(mode)) for mode in page.modes] == [2, 2]


def test_every_mode_gives_the_same_page_from_the_same_image(page):
    looks = [page.look(mode).answer for mode in page.modes]
    assert {look.page for look in looks} == {"<p>same</p>"}
    assert {look.kernel for look in looks} == {os.uname().release}
    assert {look.exit_code for look in looks} == {7}
    said = "\n".join(table.notes(page))
    assert "The image is the same in every mode" in said
    assert "The page is the same in every mode" in said
    assert "no interval is given" in said


def test_results_hold_every_raw_sample(page, tmp_path):
    results.write(page, str(tmp_path / "new" / "folder"))
    document = json.loads((tmp_path / "new/folder/result.json").read_text())
    assert document["seed"] == 1
    assert document["order"] == [list(turn) for turn in page.order]
    assert len(document["samples"]) == 6
    assert document["host"]["kernel"].startswith(os.uname().release)
    assert document["workload"]["ready"]["http"] == {"port": 8123, "path": "/"}
    report = (tmp_path / "new/folder/report.md").read_text()
    assert "start to first answer" in report
    assert "<p>" not in report  # a page must not become part of the report's own markup


def test_a_delay_of_300_ms_is_seen(guest_root):
    done = compare(SPOKEN, ["host", "container"], 1)
    for sample in done.samples:
        assert sample.between_s("T0", "T5") >= 0.3
        assert sample.exit_code == 3
    assert ("exit code", ("3", "3")) in [tuple(row) for row in table.rows(done)]


def test_a_failure_is_nothing_with_a_reason_never_zero(guest_root):
    done = compare(PAGE._replace(command=("false",)), ["container"], 1)
    (sample,) = done.of("container")
    assert "ended with code 1" in sample.error
    assert sample.between_s("T0", "T6") is None
    assert sample.pss_bytes is None
    rows = {row.label: row.cells for row in table.rows(done)}
    assert rows["start to first answer"] == ("-",)
    assert rows["runs"] == ("0 of 1",)
    assert any(note.startswith("Failed, container, round 1") for note in table.notes(done))
    assert instance.names() == []


def test_a_mode_that_cannot_run_is_an_error_unless_allowed(guest_root):
    lonely = SPOKEN._replace(network="none")  # mode host has no network namespace to be empty
    with pytest.raises(UnavailableError, match="mode host") as caught:
        compare(lonely, ["container", "host"], 1)
    assert "--allow-missing" in caught.value.hint
    done = compare(lonely, ["container", "host"], 1, allow_missing=True)
    assert done.modes == ("container",)
    assert any(note.startswith("host was left out: ") for note in table.notes(done))
    with pytest.raises(UnavailableError, match="none of these modes"):
        compare(lonely, ["host"], 1, allow_missing=True)


@pytest.mark.parametrize("modes", [["container", "container"], ["nowhere"], [""]])
def test_wrong_modes(guest_root, modes):
    with pytest.raises(SpecError):
        compare(SPOKEN, modes, 1, allow_missing=True)


def test_the_order_is_random_and_only_the_seed_determines_it():
    modes = ("host", "container", "vm")
    order = comparison.rounds(modes, 50, 7)
    assert all(sorted(turn) == sorted(modes) for turn in order)
    assert order == comparison.rounds(modes, 50, 7)
    assert order != comparison.rounds(modes, 50, 8)
    assert len(set(order)) == 6


def test_an_interval_needs_enough_samples_and_holds_the_median():
    values = [float(number) for number in range(ENOUGH)]
    assert median_interval(values[1:]) is None
    interval = median_interval(values)
    assert interval.low < statistics.median(values) < interval.high
    pairs = [(3.0 * value, value) for value in values[1:] + values[1:]]
    assert ratio(pairs) == 3.0
    assert ratio_interval(pairs).low <= 3.0 <= ratio_interval(pairs).high


def test_a_verdict_needs_a_measurement():
    one = Study("title", {"a": [1.0, None], "b": [2.0, 3.0], "c": [None, None]}, {"c": "is broken"})
    assert claims.ratio_verdict("", one, "a", "b", 0.5)[2:] == ("0.50", True)
    assert claims.ratio_verdict("", one, "a", "b", 0.4).met is False
    assert claims.ratio_verdict("", one, "a", "c", 1.0)[2:] == ("is broken", None)
    assert claims.difference_verdict("", one, "b", "a", 1.0).met is False
    assert claims.size_verdict("", None, 1).met is None


def test_peers_start_the_same_program_and_leave_nothing(guest_root):
    with shared_root(containers.workload()) as root:
        contenders = containers.contenders(root)
        done = study("peers", {**contenders, "broken": broken}, 1, 1, silent)
        assert os.path.ismount(root.path)
    able = [containers.OURS_ATTACHED, containers.OURS_DETACHED, containers.FLOOR, containers.SAME_CALLS]
    assert all(done.median_s(name) > 0 for name in able), done.failures
    assert done.seconds["broken"] == [None]
    assert done.failures["broken"] == "it is broken"
    assert not os.path.exists(root.folder)
    assert instance.names() == []


def broken():
    raise VmctlError("it is broken")


def test_qemu_by_hand_gets_the_same_arguments_without_libvirts_descriptors():
    given = ["qemu", "-S", "-chardev", "socket,id=charmonitor,fd=13,server=on", "-add-fd", "set=2,fd=11,opaque=x"]
    given += ["-chardev", "file,id=charchannel1,path=/dev/fdset/2,append=on", "-m", "256"]
    expected = ["qemu", "-chardev", "null,id=charmonitor"]
    expected += ["-chardev", "file,id=charchannel1,path=/there/by-hand-charchannel1,append=on", "-m", "256"]
    assert guests.without_libvirt(given, "/there") == expected


def test_the_verb(guest_root, tmp_path):
    spec = tmp_path / "spoken.yaml"
    spec.write_text('image: tiny\ncommand: [sh, -c, "echo now; exit 3"]\n')
    words = ("bench", str(spec), "--modes", "host", "--runs", "1", "--seed", "5")
    table_text = ok(*words)
    assert "HOST" in table_text
    assert "start to first output" in table_text
    document = json.loads(ok(*words, "--format", "json"))
    assert document["order"] == [["host"]]
    assert {sample["exit_code"] for sample in document["samples"]} == {3}
    refused("bench")
    refused("bench", str(spec), "--runs", "0")
    refused("bench", str(spec), "--modes", "hots")
    assert vmctl(*words[:1], str(tmp_path / "missing.yaml")).code == 125


@pytest.mark.parametrize("who", ["group", "command"])
def test_ctrl_c_leaves_nothing(guest_root, tmp_path, who):
    """A terminal's Ctrl-C reaches the whole group, `kill` the command alone."""
    spec = tmp_path / "endless.yaml"
    spec.write_text("image: tiny\ncommand: [sleep, '1000']\nready: {log: never}\n")
    words = [VMCTL, "bench", str(spec), "--modes", "container", "--runs", "5"]
    bench = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: any(instance.load(name).state.pid for name in instance.names()))
        (os.killpg if who == "group" else os.kill)(bench.pid, signal.SIGINT)
        assert bench.communicate(timeout=60)[1].endswith("interrupted\n")
    finally:
        bench.kill()
    assert bench.returncode == 130
    assert instance.names() == []
