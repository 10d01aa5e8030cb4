"""`vmctl lab class`: the same effect over the machines of a class."""

import csv
import html
import io
import re

import msgspec
import pytest
from support.commands import ok, refused, vmctl

from bench import labs
from bench.classroom import effects, page
from bench.handins import record as records
from bench.handins.record import Measured, Record
from bench.labs.lab import Samples
from bench.labs.running import Outcome

MIB = 1 << 20


def handin(number, start_s=None, guest_s=None, host=None, **about):
    """Return a hand-in of labs 3 and 28 as a run writes it; every machine measures other values."""
    emulated = number % 2 == 0
    start_s = 0.01 + number / 1e4 if start_s is None else start_s
    guest_s = guest_s or (3.0 + number / 100 if emulated else 0.4 + number / 100)
    seen = {
        "host: start": Samples("s", tuple(0.002 + number / 1e5 + turn / 1e6 for turn in range(5))),
        "container: start": Samples("s", tuple(start_s + turn / 1e6 for turn in range(5))),
        "vm: start": Samples("s", tuple(guest_s + turn / 1e6 for turn in range(5))),
        "vm: accelerator": "tcg" if emulated else "kvm",
    }
    facts = {"cpu": f"CPU of kind {number % 3}", "cpus": 2 + number, "kernel": "6.1.0 #1", "memory_bytes": MIB << 10}
    found = Record(vmctl="0.2", id=f"id {number}", student=f"Student {number}", hosts={f"h{number}": host or facts})
    accelerator = seen["vm: accelerator"]
    of_run = {
        "begun": 1.7e9,
        "host": f"h{number}",
        "boot": f"b{number}",
        "load": (0.1, 0.2),
        "accelerator": accelerator,
    }
    lab = labs.find("start-times")
    outcome = Outcome(lab.number, lab.name, lab.claim, *lab.decide(seen), seen, 60.0)
    return records.added(found, outcome, {**of_run, **about})


def gathered(*some, **options):
    return effects.gathered({f"{number}.json": one for number, one in enumerate(some)}, **options)


def effect(found, name):
    (one,) = [one for one in found.effects if one.name == name]
    return one


def test_what_goes_with_a_difference():
    found = gathered(*map(handin, range(12)))
    guests = effect(found, "vm: start")
    assert guests.goes_with == ("accelerator: 460.0 ms (6) with kvm, 3.05 s (6) without",)
    assert [one.value for one in guests.points] == sorted(one.value for one in guests.points)
    # the time of a container grows with the number of processors here, and does not depend on the accelerator
    assert effect(found, "container: start").goes_with == (
        "processors: the more, the larger (Kendall's tau 1.00, 12 machines)",
    )


def test_what_does_not():
    mixed = [handin(number, 0.01 + (number * 7 % 12) / 1e4, 1.0 + (number * 7 % 12) / 100) for number in range(12)]
    found = gathered(*mixed)
    assert effect(found, "container: start").goes_with == effect(found, "vm: start").goes_with == ()
    assert effect(found, "host: start").goes_with  # that one still grows with the number
    few = gathered(*map(handin, range(6)))
    assert effect(few, "vm: start").goes_with == ()  # three in a group are chance
    assert gathered(handin(1), handin(2)).effects == ()


def test_outliers():
    found = gathered(*map(handin, range(18)), handin(19, start_s=0.9))
    assert [one.machine for one in effect(found, "container: start").points if one.far] == ["Student 19"]
    for one in gathered(*map(handin, range(24))).effects:  # emulated guests are not outliers: they are compared
        assert not any(point.far for point in one.points)  # with one another
    assert not any(
        one.far for one in effect(gathered(*map(handin, (0, 2, 4, 6, 8)), handin(10, 0.9)), "vm: start").points
    )


def test_verdicts_and_who_is_alone_with_one():
    found = gathered(*map(handin, range(11)), handin(11, guest_s=5.0))
    assert [row[1:] for row in page._verdicts(found)] == [("7", "5", "-")]
    found = gathered(*(handin(number, guest_s=3 + number / 100) for number in range(11)), handin(11))
    assert [row[1:] for row in page._verdicts(found)] == [("11", "1", "Student 11")]


def test_wrong_hand_ins_do_not_count():
    lying = handin(3)
    lying = msgspec.structs.replace(lying, runs=(msgspec.structs.replace(lying.runs[0], took_s=99.0),))
    copied = msgspec.structs.replace(handin(1), id="other", student="Copy")
    found = gathered(handin(0), handin(1), handin(2), lying, copied, handin(4), handin(5))
    assert {one.machine for one in effect(found, "vm: start").points} == {f"Student {n}" for n in (0, 2, 4, 5)}
    assert {name for name, _ in found.left_out} == {"Student 3", "Student 1", "Copy"}


def test_reasons_are_shown_whole():
    """A claim of a student is as long as the check quotes it; what its evidence gives comes after that."""
    busy = [handin(number, load=(9.0 + number, 9.5)) for number in range(3)]
    edited = handin(3)
    run = msgspec.structs.replace(edited.runs[0], reason="the container was quicker " * 20)
    found = gathered(*busy, msgspec.structs.replace(edited, runs=(run,)))
    (wrong,) = [text for _, text in found.left_out if "the reason is" in text]
    assert wrong.endswith("until the first output'")
    text = page.page(found)
    doubts = [point.doubts for point in effect(found, "vm: start").points]
    assert all("the host was busy" in one for one in doubts)
    for whole in (wrong, *doubts):
        assert html.escape(whole).replace("&#x27;", "&#39;") in text
    assert effects.cut("x" * 81) == "x" * 79 + "\u2026"


def hostile(number):
    """Return a hand-in that passes the check, with texts that try to leave their place on the page."""
    bad = "</td><script>alert(1)</script>\x1b]0;x\x07" + "x" * 5000
    deep = []
    for _ in range(500):
        deep = [deep]
    one = handin(
        number, host={"cpu": bad, "cpus": deep, "kernel": "", "memory_bytes": "x", bad: bad, "governor": 1e999}
    )
    run = one.runs[0]
    more = {bad: Measured(bad, (1.0,)), "$x^2$": Measured("s", (0.5,)), "zero": Measured("bytes", (0.0, -1e18))}
    more |= {f"name {name}": Measured("1", (1.0,)) for name in range(400)}
    run = msgspec.structs.replace(run, evidence={**run.evidence, **more})
    run = msgspec.structs.replace(run, digest=records.digest(run, one.id))
    return msgspec.structs.replace(one, student=f"{bad}{number}", runs=(run,))


def test_hostile_hand_ins(tmp_path):
    found = gathered(*map(hostile, range(4)))
    assert len(found.effects) <= 300
    assert not found.left_out, found.left_out
    text = page.page(found)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "$x^2$" in text
    assert "xxxxx" * 30 not in text
    assert len(text) < 5_000_000
    for number in range(4):
        records.write(str(tmp_path / f"{number}.json"), hostile(number))
    assert "\x1b" not in ok("lab", "class", "--format", "csv", *(str(path) for path in tmp_path.iterdir()))


@pytest.fixture
def handins(tmp_path):
    paths = [str(tmp_path / f"{number}.json") for number in range(9)]
    for number, path in enumerate(paths):
        records.write(path, handin(number))
    return paths


def test_the_command(handins, tmp_path):
    out = str(tmp_path / "class.html")
    assert ok("lab", "class", "--out", out, *handins) == f"{out}\n"
    text = (tmp_path / "class.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert text.count("<svg") == 1
    assert "Student 8" in text
    ok("lab", "class", "--anonymous", "--out", out, *handins)
    assert "Student" not in (tmp_path / "class.html").read_text()
    rows = list(csv.DictReader(io.StringIO(ok("lab", "class", "--format", "csv", *handins))))
    assert len(rows) == 3 * 9
    assert {row["accelerator"] for row in rows} == {"kvm", "tcg"}
    (tmp_path / "bad.json").write_text("{")
    result = vmctl("lab", "class", "--out", out, *handins, str(tmp_path / "bad.json"))
    assert (result.code, "bad.json is damaged" in result.err) == (1, True)
    result = vmctl("lab", "class", str(tmp_path / "bad.json"))
    assert (result.code, "none of the files is a record" in result.err) == (125, True)
    assert "cannot write" in refused("lab", "class", "--out", str(tmp_path / "no" / "x"), *handins)
