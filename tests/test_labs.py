"""`vmctl lab`: every lab runs for real; each rule turns its verdict with the evidence."""

import json
import os
import re
import signal
import subprocess

import pytest
from support.commands import ok, refused, start, vmctl, wait_for
from support.lab_evidence import EVIDENCE
from support.tracked import ROOT

from bench import labs
from bench.labs import energy, lab
from vmctl.cli import VERBS
from vmctl.cli.lab import show

pytestmark = pytest.mark.timeout(1800)
ALL = {one.number: one for one in labs.labs()}
with open(os.path.join(ROOT, "docs/labs.md"), encoding="utf-8") as file:
    TABLE = file.read()


@pytest.fixture(autouse=True)
def records_are_elsewhere(tmp_path, monkeypatch):
    """A record goes to the current folder."""
    monkeypatch.chdir(tmp_path)


def test_measured_evidence():
    seen = {"container: start": lab.Samples("s", (0.5, 0.25, 1.0)), "vm: start": "none"}
    assert lab.plain(seen) == {"container: start": {"unit": "s", "values": (0.5, 0.25, 1.0)}, "vm: start": "none"}
    assert lab.samples(seen, "container: start") == (0.5, 0.25, 1.0)
    assert (lab.samples(seen, "vm: start"), lab.text(seen, "container: start")) == ((), "")
    assert str(seen["container: start"]) == "500.0 ms (250.0 ms to 1.00 s, 3 samples)"


def test_a_disturbed_machine_decides_nothing():
    for number, name in (
        (13, "host: getppid"),
        (20, "vm: alone"),
        (29, "container: getppid"),
        (34, "vm with messages: processor time"),
        (35, "vm with an uncompressed kernel: processor time"),
    ):
        seen, changes = EVIDENCE[number]
        busy = {**seen, **changes[0], name: lab.Samples("s", (1.0, 3.0, 4.0))}
        assert (ALL[number].decide(busy).word, "disturbed" in ALL[number].decide(busy).reason) == (
            lab.UNDECIDABLE,
            True,
        )


def test_what_lies_between_decides_nothing():
    for number, change in (
        (34, {"vm with messages: processor time": lab.Samples("s", (2.06, 2.2))}),
        (36, {"restored guests: first use": lab.Samples("s", (0.3, 0.2, 0.3))}),
        (38, {"vm: joules": lab.Samples("1", (12.0, 10.0, 13.0))}),
        (38, {"vm: accelerator": "tcg"}),
        (38, {"this machine: energy counters": "none: there are none"}),
    ):
        assert ALL[number].decide({**EVIDENCE[number][0], **change}).word == lab.UNDECIDABLE


def test_energy_counters(tmp_path):
    with pytest.raises(FileNotFoundError):
        energy.Counters(str(tmp_path))
    for zone, value in (("intel-rapl:0", 900), ("intel-rapl:1", 5), ("intel-rapl:0:0", 7)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{value}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("1000\n")
    found = energy.Counters(str(tmp_path))
    before = found.read_uj()
    assert len(before) == 2  # a part of a package is in its package
    (tmp_path / "intel-rapl:0/energy_uj").write_text("150\n")  # it has begun anew
    (tmp_path / "intel-rapl:1/energy_uj").write_text("55\n")
    assert found.joules_since(before) == pytest.approx(300e-6)
    (tmp_path / "intel-rapl:1/energy_uj").unlink()
    with pytest.raises(FileNotFoundError):
        found.read_uj()


def test_root_of_a_user_is_not_root_of_this_machine():
    seen, _ = EVIDENCE[10]
    of_user = {**seen, "container: map": "0 0 65536"}
    assert ALL[10].decide({**of_user, "this machine: user of vmctl": "1000"}).word == lab.HOLDS
    assert ALL[10].decide({**of_user, "this machine: user of vmctl": "0"}).word == lab.REFUTED


def test_each_lab_has_evidence_here():
    assert set(EVIDENCE) == set(ALL)


@pytest.mark.parametrize("number", EVIDENCE)
def test_opposite_evidence_turns_the_verdict(number):
    seen, changes = EVIDENCE[number]
    decide = ALL[number].decide
    assert decide(seen).word == lab.HOLDS, decide(seen)
    for change in changes:
        assert decide({**seen, **change}).word == lab.REFUTED, change
    nothing = {name: "" if isinstance(value, str) else value._replace(values=()) for name, value in seen.items()}
    assert decide({}).word == decide(nothing).word == lab.UNDECIDABLE


@pytest.mark.parametrize("one", ALL.values(), ids=lambda one: one.name)
def test_texts(one):
    """The text of a lab is read in a minute."""
    text = show.text(one)
    assert len(text.split()) < 250
    assert one.rule.startswith("holds if ")
    assert f"| {one.number} {one.name} |" in TABLE
    assert set(re.findall(r"(?<!make )\bvmctl ([a-z]+)", " ".join(one.next))) - {"has"} <= set(VERBS)
    for path in re.findall(r"configs/\S+\.yaml", text):
        assert os.path.exists(os.path.join(ROOT, path))


def test_show():
    text = ok("lab", "show", "shared-kernel")
    assert ok("lab", "show", "1") == text
    assert json.loads(ok("lab", "show", "--format", "json", "1"))["claim"] == ALL[1].claim in text


def test_the_list():
    assert ok("lab", "ls", "-q").split() == [one.name for one in ALL.values()]
    assert [row["number"] for row in json.loads(ok("lab", "ls", "--format", "json"))] == list(ALL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "99"), "there is no lab 99"),
        (("run",), "give labs, or --all"),
        (("run", "--all", "1"), "give labs, or --all"),
        (("run", "--modes", "moon", "1"), "there is no mode moon"),
        (("run", "--predict", "1"), "--predict reads a line"),
    ],
)
def test_wrong_calls(own_root, words, message):
    assert message in vmctl("lab", *words).err


def test_a_mode_that_may_not_be_used(own_root):
    (found,) = json.loads(ok("lab", "run", "--modes", "host,container", "--format", "json", "1"))
    assert (found["verdict"], found["reason"]) == (lab.UNDECIDABLE, "mode vm was not asked for")
    assert "there is no lab" in refused("lab", "show", "0")


# what these show on any machine; the others depend on its speed, its memory, or images in its store
SURE = {
    **dict.fromkeys((1, 2, 5, 7, 8, 9, 10, 15, 16, 17, 18, 19, 21, 22, 23, 24, 26, 32), lab.HOLDS),
    **dict.fromkeys((4, 6, 11, 33), lab.REFUTED),
}
QUICK = (1, 5, 8, 19, 33)  # they share one start of each mode, or need no start


def check(words, numbers):
    images = ok("image", "ls", "-q")
    result = vmctl("lab", "run", *words, "--predict", "--format", "json", stdin="h\n" * len(ALL), timeout_s=1700)
    assert result.code == 0, result
    found = {one["number"]: one for one in json.loads(result.out)}
    assert set(found) == set(numbers)
    for number, one in found.items():
        assert one["verdict"] == SURE.get(number, one["verdict"]), one
        assert one["verdict"] in lab.CHOICES
        assert one["predicted"] == lab.HOLDS
        assert one["evidence"] or one["verdict"] == lab.UNDECIDABLE, one
    assert ok("ps", "-aq") == ""
    assert ok("image", "ls", "-q") == images


def test_quick_labs_for_real(own_store):
    check([str(number) for number in QUICK], QUICK)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_lab_leaves_nothing(own_store, tmp_path, signum):
    images = ok("image", "ls", "-q")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = start("lab", "run", "density", stderr=subprocess.DEVNULL, env=environment)
    wait_for(lambda: len(ok("ps", "-q").split()) >= 2)
    process.send_signal(signum)
    assert process.wait(120) == 128 + signum
    assert ok("ps", "-aq") == ""
    assert ok("image", "ls", "-q") == images
    assert os.listdir(temporary) == []


@pytest.mark.long
def test_all_labs_for_real(own_store):
    check(["--all"], ALL)
