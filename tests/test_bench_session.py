"""A running measurement: its schedule, samples that are written at once, interruptions, failures, limits."""

import json
import os
import shutil
import signal
import subprocess
import time

import msgspec
import pytest
from support.commands import VMCTL, free_port, ok, refused, start, vmctl, wait_for

from bench import manifest, questions, result, schedule, session
from bench.model import CONTROL, Sample, Step
from vmctl import oldforms
from vmctl.errors import SpecError
from vmctl.instances import instance
from vmctl.spec.workload import File, HttpProbe, Ready, Workload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the modes need root here")

PORT = free_port()  # a port of the host in mode host
SPOKEN = Workload(name="spoken", image="tiny", command=("sh", "-c", "sleep 0.3; echo now; exit 3"))
PAGE = Workload(
    name="page",
    image="tiny",
    command=("httpd", "-f", "-p", str(PORT), "-h", "/srv"),
    files=(File("/srv/index.html", "<p>same</p>"),),
    ready=Ready(http=HttpProbe(PORT)),
)


def silent(_):
    pass


def measured(folder, work, modes=("host", "container"), metrics=("boot",), runs=2, **options):
    """Return the result of a small measurement."""
    made = schedule.make(work, modes, metrics, runs, 1, **options)
    under_way = session.begin(str(folder), work, made, ())
    under_way.follow(silent)
    return under_way.result()


@pytest.fixture(scope="module")
def one_round(guest_root, tmp_path_factory):
    """A measurement of one round in mode host, which is done: its folder and its result."""
    folder = tmp_path_factory.mktemp("one-round")
    return folder, measured(folder, SPOKEN, ("host",), runs=1)


@pytest.fixture
def done(one_round, tmp_path):
    """The result of a measurement whose folder is `tmp_path`."""
    shutil.copytree(one_round[0], tmp_path, dirs_exist_ok=True)
    return one_round[1]


def steps_of(made):
    return [(step.kind, step.mode, step.round) for step in made.steps]


# The plan


def test_each_round_has_every_mode_and_the_control_once():
    made = schedule.make(SPOKEN, ("host", "container", "vm"), ("boot",), 30, 7)
    for number in range(1, 31):
        turn = [(step.kind, step.mode) for step in made.steps if step.round == number]
        assert sorted(turn) == [(CONTROL, ""), ("start", "container"), ("start", "host"), ("start", "vm")]
    assert {step.round for step in made.steps if step.round < 1} == {0, -1, -2}


def test_the_control_is_there_once_per_round_however_many_kinds_there_are():
    made = schedule.make(PAGE, ("host", "container"), ("boot", "cpu", "net"), 4, 7)
    assert len(steps_of(made)) == len(set(steps_of(made)))
    assert [step.round for step in made.steps if step.kind == CONTROL] == [1, 2, 3, 4]
    assert CONTROL not in {step.kind for step in schedule.make(PAGE, ("host",), ("density",), 4, 7).steps}


def test_the_order_is_the_seeds_and_differs_from_round_to_round():
    one, same, other = (schedule.make(SPOKEN, ("host", "container", "vm"), ("boot",), 30, seed) for seed in (1, 1, 2))
    assert steps_of(one) == steps_of(same) != steps_of(other)
    orders = {tuple(step.mode for step in one.steps if step.round == number) for number in range(1, 31)}
    assert len(orders) > 10


def test_a_result_has_the_kernels_parameters_and_not_those_of_init():
    line = "root=/dev/vda ro rdinit=/one init=/sbin/two quiet mitigations=off -- --token secret"
    assert manifest.kernel_parameters(line) == "root=/dev/vda ro quiet mitigations=off"
    assert manifest.kernel_parameters("ro") == "ro"
    assert " -- " not in manifest.facts()["kernel_command_line"]


def test_each_mode_is_first_as_often_as_any_other():
    made = schedule.make(SPOKEN, ("host", "container", "vm"), ("boot",), 3000, 5)
    counted = [step for step in made.steps if step.round > 0 and step.mode]
    firsts = [counted[index].mode for index in range(0, len(counted), 3)]
    assert all(900 < firsts.count(mode) < 1100 for mode in made.modes)


def test_costly_kinds_get_fewer_rounds_and_none_of_warming_up_behind_others():
    made = schedule.make(PAGE, ("host",), ("boot", "memory", "density"), 30, 1)
    rounds = {kind: [step.round for step in made.steps if step.kind == kind] for kind in ("start", "ladder", "load")}
    assert max(rounds["start"]) == 30
    assert min(rounds["start"]) == -2
    assert 1 < max(rounds["ladder"]) < 30
    assert min(rounds["ladder"]) == min(rounds["load"]) == 1


@pytest.mark.parametrize("metrics", [("speed",), (), ("boot", "boot"), ("",)])
def test_wrong_metrics(metrics):
    with pytest.raises(SpecError):
        schedule.check_metrics(metrics)


# Samples


def test_a_service_and_a_batch_in_two_modes(guest_root, tmp_path):
    page, spoken = measured(tmp_path / "page", PAGE), measured(tmp_path / "spoken", SPOKEN)
    assert [one.error for one in (*page.samples, *spoken.samples)] == [None] * (len(page.samples) + len(spoken.samples))
    assert len(page.of("start", "host")) == len(page.of("start", "container")) == len(page.of(CONTROL, "")) == 2
    assert all(one.between_s("T0", "T6") > 0 for one in page.of("start", "container"))
    assert all(one.between_s("T0", "T5") >= 0.3 for one in spoken.of("start", "container"))
    assert instance.names() == []


def test_every_sample_is_on_disk_before_the_next_one_is_taken(guest_root, tmp_path):
    made = schedule.make(SPOKEN, ("host",), ("boot",), 1, 1)
    seen = []

    def count(_):
        path = tmp_path / "x" / session.SAMPLES
        seen.append(len(path.read_text().splitlines()) if path.exists() else 0)

    session.begin(str(tmp_path / "x"), SPOKEN, made, ()).follow(count)
    assert seen == list(range(len(made.steps)))


def test_a_failure_is_nothing_with_a_reason_never_zero(guest_root, tmp_path):
    done = measured(tmp_path, PAGE._replace(command=("false",)), ("container",), runs=1)
    (sample,) = done.of("start", "container")
    assert "ended with code 1" in sample.error
    assert sample.between_s("T0", "T6") is None
    assert sample.values == {}
    (figure,) = [one for one in done.figures if one.key == "boot.answer_s"]
    assert figure.value is None
    assert figure.failures == 1
    assert instance.names() == []


def test_a_sample_that_takes_too_long_is_ended_and_nothing_of_it_stays(guest_root, tmp_path):
    slow = PAGE._replace(command=("sleep", "1000"))
    done = measured(tmp_path, slow, ("container",), runs=1, time_limit_s=1.0)
    assert all("did not end within 1 s" in one.error for one in done.samples if one.kind == "start")
    assert instance.names() == []


# Interruptions


def write_spec(tmp_path):
    path = tmp_path / "spoken.yaml"
    path.write_text("image: tiny\ncommand: [sh, -c, 'sleep 0.2; echo now']\n")
    return str(path)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
def test_a_measurement_that_was_interrupted_is_taken_up_again(guest_root, tmp_path, signum):
    folder = tmp_path / "out"
    words = ("bench", write_spec(tmp_path), "--modes", "host,container", "--runs", "3", "--seed", "4")
    process = start(*words, "--metrics", "boot", "--out", str(folder))
    path = folder / session.SAMPLES
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) >= 7)
    process.send_signal(signum)
    process.communicate(timeout=120)
    kept = path.read_text().splitlines()
    assert not (folder / "result.json").exists()
    ok("bench", "--resume", str(folder), timeout_s=120)
    lines = path.read_text().splitlines()
    assert lines[: len(kept)] == kept
    done = result.read(str(folder))
    assert [(one.kind, one.mode, one.round) for one in done.samples] == steps_of(done.plan)
    assert instance.names() == []


def test_guests_are_run_as_before_when_a_measurement_goes_on(guest_root, tmp_path):
    made = schedule.make(SPOKEN, ("host",), ("boot",), 1, 1)
    session.begin(str(tmp_path), SPOKEN, made, (), {"accel": "tcg"})
    assert session.resume(str(tmp_path)).options == {"accel": "tcg"}
    assert "cannot be combined with --accel" in refused("bench", "--resume", str(tmp_path), "--accel", "kvm")


def test_a_measurement_that_an_earlier_version_began_is_resumed(guest_root, tmp_path):
    """vmctl 0.1 kept the workload as an array without names, and its choices as variables of the environment."""
    made = schedule.make(SPOKEN, ("host",), ("boot",), 1, 1)
    session.begin(str(tmp_path), SPOKEN, made, (), {"accel": "tcg"})
    path = tmp_path / session.PLAN
    kept = json.loads(path.read_text())
    assert kept.pop("format") == 1
    assert kept.pop("workload")["image"] == SPOKEN.image
    work = {key: getattr(SPOKEN, key) for key in oldforms.KEYS["workload"].split()}
    work["vm"] = work["vm"][: len(oldforms.KEYS["vm"].split())]  # later keys were not there
    kept["work"] = json.dumps([*work.values()])
    kept["choices"] = {"VMCTL_ACCEL": kept.pop("options")["accel"]}
    path.write_text(json.dumps(kept))
    again = session.resume(str(tmp_path))
    assert (again.work, again.options) == (SPOKEN, {"accel": "tcg"})
    path.write_text(json.dumps({**kept, "format": 99}))
    with pytest.raises(SpecError, match="written by a later vmctl"):
        session.resume(str(tmp_path))
    for odd, message in (
        ({"colour": 1}, 'the unknown key "colour"'),
        ({"work": 7}, "is damaged"),
        ({"head": []}, "is"),
    ):
        path.write_text(json.dumps({**kept, **odd}))
        with pytest.raises(SpecError, match=message):
            session.resume(str(tmp_path))


@pytest.mark.usefixtures("done")
def test_half_a_line_is_measured_again(tmp_path):
    path = tmp_path / session.SAMPLES
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    again = session.resume(str(tmp_path))
    assert len(again.samples) == len(content.splitlines()) - 1
    again.follow(silent)
    assert path.read_bytes().splitlines()[:-1] == content.splitlines()[:-1]
    assert len(again.samples) == len(again.head.plan.steps)


@pytest.mark.parametrize(
    ("name", "content"), [(session.PLAN, "{"), (session.PLAN, "{}"), (session.SAMPLES, "{}\n"), (session.SAMPLES, "\n")]
)
@pytest.mark.usefixtures("done")
def test_damaged_files_are_not_taken_up(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(SpecError, match="is damaged"):
        session.resume(str(tmp_path))


@pytest.mark.usefixtures("done")
def test_there_is_one_measurement_in_a_folder_and_none_in_others(tmp_path):
    with pytest.raises(SpecError, match="already contains a measurement"):
        measured(tmp_path, SPOKEN, ("host",), runs=1)
    with pytest.raises(SpecError, match="contains no measurement"):
        session.resume(str(tmp_path / "nowhere"))


def test_one_at_a_time_measures_into_a_folder(guest_root, tmp_path):
    folder = tmp_path / "out"
    words = ("bench", write_spec(tmp_path), "--modes", "host", "--metrics", "boot", "--out", str(folder))
    process = start(*words, "--runs", "1000")
    try:
        wait_for((folder / session.SAMPLES).exists)
        assert "another vmctl is measuring into" in refused("bench", "--resume", str(folder))
        assert f"another vmctl is measuring into {folder}" in refused(*words)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert f"`vmctl bench --resume {folder}` continues" in said.decode()
    assert "already contains a measurement" in refused(*words)
    lines = (folder / session.SAMPLES).read_bytes().splitlines()
    assert len(session.resume(str(folder)).samples) == len(lines)


def test_a_worker_that_is_killed_is_a_failed_sample_and_leaves_nothing(guest_root, tmp_path):
    spec = tmp_path / "long.yaml"
    spec.write_text("image: tiny\ncommand: [sleep, '1000']\nready: {log: never, timeout: 500s}\n")
    words = ("--modes", "container", "--metrics", "boot", "--runs", "1", "--out", str(tmp_path / "out"))
    process = start("bench", str(spec), *words)
    path = tmp_path / "out" / session.SAMPLES
    for number in range(5):  # three warm-ups, one that counts, and the control, which may finish
        wait_for(lambda n=number: instance.names() or (path.exists() and len(path.read_text().splitlines()) > n))
        for worker in workers(process.pid):
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda n=number: path.exists() and len(path.read_text().splitlines()) > n)
    assert process.wait(120) == 1
    done = result.read(str(tmp_path / "out"))
    errors = {one.error for one in done.samples if one.kind == "start"}
    assert errors == {"the worker was killed by signal 9"}
    assert instance.names() == []


def workers(parent):
    """Return the worker processes that `vmctl bench` has started."""
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(word) for word in file.read().split()]


def test_a_disk_that_is_full_is_named_and_what_was_measured_goes_on(guest_root, tmp_path):
    """A file system of 64 KiB, in a separate mount namespace, has no room for the samples."""
    place = tmp_path / "small"
    place.mkdir()
    words = f"{VMCTL} bench {write_spec(tmp_path)} --modes host --metrics boot --runs 250 --out {place}/out"
    script = f"mount -t tmpfs -o size=64k small {place} && {words}; code=$?; ls {place}/out >&2; exit $code"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 125, done
    assert f"{place}/out" in done.stderr
    assert "cannot write " in done.stderr
    assert ": No space left on device" in done.stderr
    assert f"--resume {place}/out" in done.stderr
    assert ".new" not in done.stderr
    assert instance.names() == []


def test_a_folder_that_somebody_removes_is_named(guest_root, tmp_path):
    folder = tmp_path / "out"
    words = ("--modes", "host", "--metrics", "boot", "--runs", "1000", "--out", str(folder))
    process = start("bench", write_spec(tmp_path), *words)
    wait_for((folder / session.SAMPLES).exists)
    os.rename(folder, tmp_path / "elsewhere")
    assert process.wait(120) == 125
    assert f"the folder of the samples, {folder}, has been removed" in process.communicate()[1].decode()
    assert instance.names() == []


def test_a_measurement_that_is_done_is_only_computed_again(done, tmp_path):
    again = session.resume(str(tmp_path))
    again.follow(lambda _: pytest.fail("nothing was left to be measured"))
    assert again.result() == done


# The time that is left


def test_what_is_left_is_estimated_from_what_was_needed():
    made = schedule.make(SPOKEN, ("host",), ("boot",), 3, 1)
    head = session.Head(id="x", created=0.0, host={}, explained={}, plan=made, refusals=())
    now = time.time()
    samples = [
        Sample(kind=step.kind, mode=step.mode, round=step.round, started=now - 20.0 + 2.0 * index)
        for index, step in enumerate(made.steps)
    ]
    done = session.Session("/nowhere", SPOKEN, head, samples)
    assert done._left([Step(kind="start", mode="host", round=9)] * 5).startswith("about 10.")
    assert done._left(list(made.steps)[:0]) == "less than 1 s left"
    assert (
        session.Session("/nowhere", SPOKEN, head, samples[:1])._left(list(made.steps))
        == f"{len(made.steps)} samples left"
    )


def test_what_was_measured_can_be_read_by_others(done, tmp_path):
    lines = [json.loads(line) for line in (tmp_path / session.SAMPLES).read_text().splitlines()]
    assert [msgspec.convert(line, Sample) for line in lines] == list(done.samples)
    assert os.access(VMCTL, os.X_OK)


def test_refusals_of_the_command_line(guest_root, tmp_path):
    spec = write_spec(tmp_path)
    for words, message in [
        ((), "needs a workload file"),
        ((spec, "--runs", "0"), "--runs has to be between 1 and 10,000, not 0"),
        ((spec, "--runs", "1000000000"), "--runs has to be between 1 and 10,000, not 1000000000"),
        ((spec, "--runs", "-1"), "not -1"),
        ((spec, "--instances", "0"), "--instances has to be between 1"),
        ((spec, "--metrics", "speed"), "unknown metric: speed"),
        ((spec, "--metrics", "boot, boot"), "named twice"),
        ((spec, "--metrics", ""), "--metrics '' contains an empty name"),
        ((spec, "--modes", "host,"), "--modes 'host,' contains an empty name"),
        ((spec, "--modes", "host,host"), "named twice"),
        ((spec, "--modes", "nowhere"), "nowhere"),
        (("--resume", str(tmp_path / "nowhere")), "contains no measurement"),
        (("--resume", spec), "contains no measurement"),
        ((spec, "--resume", str(tmp_path)), "cannot be combined with a workload file"),
        (
            ("--resume", str(tmp_path), "--runs", "5", "--time-limit", "1s"),
            "cannot be combined with --runs, --time-limit",
        ),
        ((spec, "--out", spec), f"cannot write results to {spec}: a file of that name exists"),
        ((spec, "--out", "/proc/nowhere"), "cannot write results to /proc/nowhere: "),
        (("verfy",), "did you mean `vmctl bench verify`?"),
        ((str(tmp_path / "none.yaml"),), "none.yaml"),
    ]:
        assert message in refused("bench", *words, code=125), words
    assert "a duration such as 500ms" in vmctl("bench", spec, "--time-limit", "soon").err


def test_a_mode_that_cannot_run_is_an_error_unless_allowed(guest_root, tmp_path):
    path = tmp_path / "lonely.yaml"
    path.write_text("image: tiny\ncommand: [echo, now]\nnetwork: none\n")  # mode host has no empty network
    words = ("bench", str(path), "--runs", "1", "--metrics", "boot")
    assert "--allow-missing" in refused(*words, "--modes", "container,host", code=125)
    ok(*words, "--modes", "container,host", "--allow-missing", "--out", str(tmp_path / "out"))
    done = result.read(str(tmp_path / "out"))
    assert done.plan.modes == ("container",)
    assert [one.mode for one in done.refusals] == ["host"]
    assert "in any of these modes" in refused(*words, "--modes", "host", "--allow-missing", code=125)


def test_a_quick_one_only_starts_and_has_only_questions_of_a_start():
    whole, quick = (schedule.make(PAGE, ("host",), ("boot", "memory"), 3, 1, quick=each) for each in (False, True))
    assert {step.kind for step in quick.steps} == {CONTROL, "start"} < {step.kind for step in whole.steps}
    assert {kind for kind, _ in questions.of(quick)} == {"start"} < {kind for kind, _ in questions.of(whole)}
