"""Records of labs: what a machine finds in hand-ins, from edited numbers to two that are the same."""

import json
import os
import pathlib
import re

import msgspec
import pytest
from support.commands import ok, refused, vmctl

from bench import labs
from bench.handins import assertions, check, grades, pictures, report
from bench.handins import record as records
from bench.handins.record import Measured, Record
from bench.labs import parameters
from bench.labs.lab import HOLDS, UNDECIDABLE, Samples
from bench.labs.running import Outcome
from vmctl.errors import SpecError

HOST, BOOT = "host-1", "11111111-1111-1111-1111-111111111111"
KERNELS = {
    "this machine: boot_id": BOOT,
    "container: boot_id": BOOT,
    "host: boot_id": BOOT,
    "host: host_sees_workload": "7",
    "container: host_sees_workload": "8",
    "this machine: kernel": "6.1.0",
    "container: kernel": "6.1.0",
    "vm: kernel": "6.1.0-56-cloud",
}
TIMES = ("container: start", (0.0123, 0.0131, 0.0127, 0.0125, 0.0129))


def outcome(name, seen, took_s=30.0):
    """Return what a run of a lab with this evidence is: the verdict is that of its rule."""
    lab = labs.find(name)
    return Outcome(lab.number, name, lab.claim, *lab.decide(seen), seen, took_s)


def record(guest="22222222", student="Ada", **about):
    """Return a record of two labs as a run writes it; `guest` is the boot id of its guest."""
    found = Record(vmctl="0.2.0", id=f"id of {student}", student=student, hosts={HOST: {"cpus": 2}})
    facts = {"begun": 1.7e9, "host": HOST, "boot": BOOT, "accelerator": "tcg", "load": (0.5, 0.6), **about}
    times = {TIMES[0]: Samples("s", tuple(value + len(student) / 1e4 for value in TIMES[1]))}
    found = records.added(found, outcome("shared-kernel", {**KERNELS, "vm: boot_id": guest, **times}), facts)
    ports = {
        f"{mode}: {number}": "listening; exit 0"
        for mode in ("host", "container", "vm")
        for number in ("first", "second")
    }
    port = {"parameter: port": "4000"}
    return records.added(found, outcome("same-port", {**ports, **port, "host: second": "in use; exit 1"}), facts)


def edited(found, number, **changes):
    """Return the record with another content of a run, which keeps its digest."""
    runs = list(found.runs)
    runs[number] = msgspec.structs.replace(runs[number], **changes)
    return msgspec.structs.replace(found, runs=tuple(runs))


def signed(found):
    """Return the record with all digests computed again, as somebody with this program can do it."""
    runs, before = [], found.id
    for run in found.runs:
        runs.append(msgspec.structs.replace(run, digest=records.digest(run, before)))
        before = runs[-1].digest
    return msgspec.structs.replace(found, runs=tuple(runs))


def texts(found, level=check.WRONG):
    return [finding.text for finding in check.check(found) if finding.level == level]


def evidence(found, **changes):
    return {**found.runs[0].evidence, **{name.replace("_", ": ", 1): value for name, value in changes.items()}}


def test_what_a_run_has_written_is_confirmed(tmp_path):
    found = record()
    assert check.check(found) == []
    assert {name: run.verdict for name, run in check.confirmed(found, []).items()} == {
        "shared-kernel": HOLDS,
        "same-port": HOLDS,
    }
    path = tmp_path / records.FILE
    records.write(str(path), found)
    assert path.stat().st_mode & 0o077 == 0
    assert records.read(str(tmp_path)) == records.read(str(path)) == found


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (lambda one: {"evidence": evidence(one, vm_boot_id="other")}, "its digest is not that of its content"),
        (lambda one: {"took_s": 31.0}, "its digest is not that of its content"),
        (lambda one: {"predicted": HOLDS}, "its digest is not that of its content"),
    ],
)
def test_an_edited_number_is_found(changes, text):
    found = record()
    assert any(text in one for one in texts(edited(found, 0, **changes(found))))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (lambda one: {"verdict": "refuted"}, "the verdict is 'refuted', and its evidence gives 'holds'"),
        (lambda one: {"reason": "because"}, "the reason is 'because', and its evidence gives"),
        (lambda one: {"evidence": evidence(one, container_boot_id="other")}, "its evidence gives 'undecidable here'"),
        (lambda one: {"evidence": evidence(one, vm_boot_id=BOOT)}, "so it was not a guest"),
        (lambda one: {"evidence": evidence(one, container_kernel="9.9.9")}, "its uname is faked"),
        (lambda one: {"boot": "other"}, "its evidence is of the boot"),
        (lambda one: {"lab": "nothing"}, "has no lab 'nothing'"),
        (lambda one: {"host": "other"}, "the facts of its host are missing"),
        (lambda one: {"begun": 4e9}, "at a time that cannot be"),
        (lambda one: {"took_s": -1.0}, "at a time that cannot be"),
        (lambda one: {"evidence": evidence(one, container_start=Measured("s", (1000.0,)))}, "all labs so far took"),
        (lambda one: {"evidence": evidence(one, container_start=Measured("s", (-1.0,)))}, "a value below 0"),
        (lambda one: {"id": "r07"}, "a run was removed or added"),
    ],
)
def test_a_lie_with_new_digests_is_found_by_its_content(changes, text):
    found = record()
    assert any(text in one for one in texts(signed(edited(found, 0, **changes(found)))))


def test_a_run_inside_the_guest_that_it_is_compared_with():
    found = record(guest="22222222")
    inside = signed(edited(found, 1, boot="22222222"))
    assert any("inside the guest of r01" in one for one in texts(inside))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"accelerator": "kvm"}, "other accelerators than before"),
        ({"load": (9.0, 1.0)}, "its load was 9.0 on 2 processors"),
        ({"rule": "0" * 64}, "another version of the lab"),
    ],
)
def test_what_does_not_compare_is_doubtful(changes, text):
    found = signed(edited(record(), 1, **changes))
    assert any(text in one for one in texts(found, check.DOUBTFUL))
    assert texts(found) == []


def test_few_values_are_doubtful():
    found = signed(edited(record(), 0, evidence=evidence(record(), container_start=Measured("s", (0.1, 0.2)))))
    assert f"fewer than {check.FEW} values: container: start" in texts(found, check.DOUBTFUL)


def test_two_records_that_share_a_run():
    one, other = record(guest="22222222"), record(guest="33333333", student="Grace")
    assert check.shared({"a": one, "b": other}) == []
    copied = record(guest="22222222", student="Grace")
    assert [text for _, _, text in check.shared({"a": one, "b": copied})] == [
        "r01 vm: boot_id and r01 vm: boot_id are equal to the last digit"
    ]
    measured = signed(edited(other, 0, evidence={**other.runs[0].evidence, TIMES[0]: one.runs[0].evidence[TIMES[0]]}))
    assert any("container: start are equal" in text for _, _, text in check.shared({"a": one, "b": measured}))
    assert "they are the same record" in [text for _, _, text in check.shared({"a": one, "b": one})]


@pytest.mark.parametrize("name", [one.name for one in labs.labs()])
@pytest.mark.parametrize("value", ["x", "", Measured("s", ()), Measured("1", (0.0,)), Measured("bytes", (1e300,))])
def test_no_rule_fails_on_hostile_evidence(name, value):
    """Each rule reads what somebody wrote: the check goes on."""
    names = dict.fromkeys(("vm: boot_id", "this machine: boot_id", "container: start", "port", "vm: map"), value)
    found = signed(edited(edited(record(), 0, lab=name), 0, evidence=names))
    assert check.check(found)


def asked(tmp_path, text):
    (tmp_path / "course.yaml").write_text(text)
    return assertions.read(str(tmp_path / "course.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labs: [shared-kernel]", []),
        ("labs: [density]", ["it was not run"]),
        ("predictions: true", ["it was not predicted"] * 2),
        ("verdicts: {same-port: refuted}", ["the verdict is 'holds', not 'refuted'"]),
        ("student: true", []),
        ("seed: '{student}'", ["the seed is '', not 'Ada'"]),
        ("accelerator: kvm", ["the accelerator is 'tcg', not 'kvm'"] * 2),
        ("values: [{lab: shared-kernel, name: 'container: start', below: 1}]", []),
        (
            "values: [{lab: shared-kernel, name: 'container: start', above: 1}]",
            ["'container: start' is 0.013, not above 1"],
        ),
        ("values: [{lab: shared-kernel, name: 'vm: start', below: 1}]", ["there is no measured 'vm: start'"]),
    ],
)
def test_assertions_of_a_teacher(tmp_path, text, said):
    assert [finding.text for finding in assertions.check(record(), asked(tmp_path, text))] == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labs: [nothing]", "there is no lab 'nothing'"),
        ("labels: []", "is not a list of assertions"),
        ("{", "is not a list of assertions"),
        ("points: {same-port: many}", "is not a list of assertions"),
    ],
)
def test_assertions_that_are_none(tmp_path, text, said):
    with pytest.raises(Exception, match=said):
        asked(tmp_path, text)


def seeded(seed, port):
    """Return a record with this seed, of lab 15 with this port."""
    run = record().runs[1]
    run = msgspec.structs.replace(run, evidence={**run.evidence, "parameter: port": str(port)})
    return signed(msgspec.structs.replace(record(), seed=seed, runs=(msgspec.structs.replace(run, id="r01"),)))


def test_the_seed_gives_parameters():
    choices = labs.find("same-port").parameters
    ports = {seed: parameters.drawn(seed, "same-port", choices)["port"] for seed in ("", "Ada", "Grace", "Alan")}
    assert ports[""] == 4000
    assert len(set(ports.values())) == 4
    for seed, port in ports.items():
        assert texts(seeded(seed, port)) == []
        (found,) = texts(seeded(seed, 4999))
        assert found.startswith("'parameter: port' is '4999', and ")
        assert found.endswith(f" gives '{port}'")
    assert "of the seed 'Ada'" not in str(texts(seeded("Ada", ports["Ada"])))
    assert any("'parameter: port'" in text for text in texts(seeded("Grace", ports["Ada"])))
    drawn = {
        seed: [parameters.drawn(seed, one.name, one.parameters) for one in labs.labs()] for seed in map(str, range(40))
    }
    assert len(set(map(str, drawn.values()))) == 40


def test_points(tmp_path):
    wanted = asked(tmp_path, "labs: [shared-kernel, same-port, density]\npoints: {shared-kernel: 2}")
    found = signed(edited(record(), 1, verdict="refuted"))
    one = grades.Checked("a.json", found, (*check.check(found), *assertions.check(found, wanted)), wanted)
    assert (one.points, one.score, one.most) == ({"shared-kernel": 2.0, "density": 0.0, "same-port": 0.0}, 2.0, 4.0)
    tests = {test["name"]: test for test in json.loads(grades.gradescope(one))["tests"]}
    assert [tests[name]["status"] for name in one.points] == ["passed", "failed", "failed"]
    assert "not run" in tests["density"]["output"]
    assert "its evidence gives 'holds'" in tests["same-port"]["output"]
    assert json.loads(grades.autolab(one)) == {"scores": one.points}


def test_a_name_is_no_formula():
    found = record(student="=1+1")
    assert "'=1+1,2.0,2.0," in grades.moodle([grades.Checked("a", found, (), assertions.Assertions())])


@pytest.fixture
def handins(tmp_path):
    """The paths of an honest hand-in, a copy of it under another name, and an edited one."""
    honest, copied, lying = record(), record(student="Grace"), edited(record("4" * 8, "Alan"), 0, took_s=1.0)
    paths = [str(tmp_path / f"{name}.json") for name in ("ada", "grace", "alan")]
    for path, found in zip(paths, (honest, copied, lying), strict=True):
        records.write(path, found)
    return paths


def test_the_command(handins):
    assert "2 of 2" in ok("lab", "check", handins[0])
    result = vmctl("lab", "check", *handins)
    assert result.code == 1
    assert f"{handins[0]}: wrong: shared with {handins[1]}" in result.out
    assert f"{handins[2]}: wrong: r01: its digest is not that of its content" in result.out
    rows = json.loads(vmctl("lab", "check", "--format", "json", *handins).out)
    assert [row["points"] for row in rows] == ["0 of 2", "0 of 2", "1 of 2"]
    assert vmctl("lab", "check", "--format", "moodle", *handins).out.count("\n") == 4
    assert json.loads(ok("lab", "check", "--format", "autolab", handins[0]))["scores"]["same-port"] == 1
    assert "one hand-in" in refused("lab", "check", "--format", "gradescope", *handins)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ("{" * 100_000, "damaged"),
        ('{"format": 2}', "later vmctl"),
        ('{"format": 1, "runs": 3}', "damaged"),
        ('{"format": 1, "vmctl": "1", "id": "1", "runs": [{"id": "r01"}]}', "damaged"),
    ],
)
def test_a_file_that_is_no_record(tmp_path, content, said):
    (tmp_path / "bad.json").write_text(content)
    assert said in refused("lab", "check", str(tmp_path / "bad.json"))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e300])
@pytest.mark.parametrize("key", ["took_s", "begun", "load", "values"])
def test_a_number_that_no_machine_measures_is_damage(key, value):
    found = record()
    evidence_of = {**found.runs[0].evidence, TIMES[0]: Measured("bytes", (value,))}
    changed = {"load": {"load": (value, value)}, "values": {"evidence": evidence_of}}.get(key, {key: value})
    found = edited(found, 0, **changed)
    text = json.dumps({"format": 1, **msgspec.to_builtins(found)})
    with pytest.raises(SpecError, match="damaged"):
        records.parse(text.encode(), "labs.json")


def test_what_a_later_version_adds_is_ignored(tmp_path, handins):
    value = json.loads(pathlib.Path(handins[0]).read_text())
    (tmp_path / "later.json").write_text(json.dumps({**value, "new": {"key": 1}}))
    assert "2 of 2" in ok("lab", "check", str(tmp_path / "later.json"))


def test_escape_sequences(tmp_path):
    """A hand-in that writes to the terminal of its teacher."""
    found = record(student="\x1b]0;x\x07Ada")
    found = signed(edited(found, 0, lab="\x1b[31mred", verdict="\x1b[2J"))
    records.write(str(tmp_path / "a.json"), found)
    for form in ("table", "json", "moodle", "gradescope", "autolab"):
        assert "\x1b" not in vmctl("lab", "check", "--format", form, str(tmp_path / "a.json")).out.replace(
            "\\u001b", ""
        )


def test_runs_are_recorded_and_resumed(tmp_path):
    out = str(tmp_path / "mine")
    assert "nothing" in refused("lab", "run", "--out", out, "nothing")
    assert not os.path.exists(out)
    assert "there is no record" in refused("lab", "run", "--resume", "--out", out, "1")
    result = vmctl("lab", "run", "--modes", "host", "--out", out, "--student", "Ada", "1", "8")
    assert result.code == 0
    assert [run.id for run in records.read(out).runs] == ["r01", "r02"]
    assert {run.verdict for run in records.read(out).runs} == {UNDECIDABLE}
    assert check.check(records.read(out)) == [one for one in check.check(records.read(out)) if one.level != check.WRONG]
    assert "has the student 'Ada'" in refused("lab", "run", "--out", out, "--student", "Grace", "1")
    assert "has runs without a seed" in refused("lab", "run", "--out", out, "--seed", "7", "1")
    decided = record(student="Ada")
    records.write(os.path.join(out, records.FILE), decided)
    result = vmctl("lab", "run", "--resume", "--modes", "host", "--out", out, "1", "15")
    assert result.err.count("the record has its verdict") == 2
    assert records.read(out) == decided


def test_the_report_has_all_and_nothing_from_outside(tmp_path):
    found = edited(record(student="<b>Ada"), 0, reason="edited & told")
    records.write(str(tmp_path / records.FILE), found)
    paths = ok("lab", "report", str(tmp_path)).split()
    assert [os.path.basename(path) for path in paths] == ["report.html", "report.md", "handin.ipynb", records.FILE]
    text = (tmp_path / "report.html").read_text()
    assert "Labs of &lt;b&gt;Ada" in text
    assert text.count("<svg") == len([run for run in found.runs for _ in pictures.of(run)])
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    for run in found.runs:
        assert f">{run.id}<" in text
    assert "its digest is not that of its content" in text  # the report of an edited record shows that
    assert "its digest is not that of its content" in (tmp_path / "report.md").read_text()
    for value in record().runs[0].evidence.values():
        if isinstance(value, str):
            assert value in text


def test_a_picture_for_each_unit():
    times = {f"{mode}: start": Measured("s", (0.1, 0.2, 0.3)) for mode in ("container", "vm")}
    run = msgspec.structs.replace(record().runs[0], evidence={**times, "size": Measured("bytes", (1.0,))})
    assert [picture.svg.count("r01-0-title") for picture in pictures.of(run)] == [2]


LADDER = {
    "nothing: to switch on": Measured("s", (1e-7, 2e-7)),
    "namespace net: to switch on": Measured("s", (2e-4, 3e-4)),
    "namespace net: other namespaces": "net",
    "no capabilities: to switch on": Measured("s", (1e-6,)),
    "no capabilities: refused": "change the root\x1b[31m",
    "all of them: a container: to switch on": Measured("s", (0.01,)),
    "all of them: a container: boot_id": BOOT,
    "another kernel: a guest: to switch on": Measured("s", (2.0,)),
    "another kernel: a guest: boot_id": "2222",
}
CROWD = {
    f"{mode}: {name}": Measured(unit, values)
    for mode in ("container", "vm")
    for name, unit, values in (
        ("memory available here", "bytes", (9e9, 8.9e9, 8.8e9)),
        ("start", "s", (0.1, 0.11)),
        ("PSS", "bytes", (1e6, 2e6)),
    )
}


def pictures_of(lab, seen):
    return pictures.of(msgspec.structs.replace(record().runs[0], lab=lab, evidence=seen))


def test_the_isolation_ladder():
    ladder, _ = pictures_of("isolation-ladder", LADDER)
    for text in ("others: net", "refuses: change the root", "another kernel", "this machine", "nothing changes"):
        assert text in ladder.svg
    assert "\x1b" not in ladder.svg
    assert len(pictures_of("isolation-ladder", {"nothing: to switch on": Measured("s", (0.0, -1.0))})) == 0


def test_curves_over_instances():
    curve, _, _ = pictures_of("density", CROWD)
    assert ">container</text>" in curve.svg
    assert "MemAvailable" in curve.text
    assert pictures_of("start-slope", CROWD)[0].text.startswith("How long the start of each next instance took")
    assert [one.text for one in pictures_of("density", {"a": Measured("bytes", (1.0,))})] == []


def test_bars_of_memory():
    sizes = {"container: memory idle": Measured("bytes", (1e6,)), "vm: memory idle": Measured("bytes", (3e8,))}
    (bars,) = pictures_of("memory-back", sizes)
    assert bars.text == "Each bar is one value, on one scale."
    (points,) = pictures_of("memory-back", {**sizes, "vm: memory idle": Measured("bytes", (-3e8,))})
    assert points.text.startswith("Each point is one value")


def test_a_notebook_is_a_hand_in(tmp_path):
    (tmp_path / "mine.ipynb").write_text(report.notebook(record()))
    assert "2 of 2" in ok("lab", "check", str(tmp_path / "mine.ipynb"))
    cells = json.loads((tmp_path / "mine.ipynb").read_text())["cells"]
    names = {}
    exec(cells[1]["source"], names)
    assert names["record"]["student"] == "Ada"
    assert sorted(names["runs"]) == ["r01", "r02"]
