"""A mode that somebody else adds: one file and one line of an entry point, with its own options and doctor lines."""

import json
import os
import subprocess

import pytest
from support.commands import ok, refused, vmctl

from vmctl import backends
from vmctl.instances import instance
from vmctl.linux import processes

BACKEND = '''
"""Mode `strange`: a plain process of the host, without an image."""

import os
import signal
import subprocess

from vmctl.backend import Exit, Features, Option, Problem
from vmctl.steps import Step
from vmctl.linux import processes
from vmctl.linux.events import Events
from vmctl.needs import Need


class Watch:
    own_kernel = False

    def __init__(self, inst):
        self.inst = inst

    def alive(self):
        return processes.alive(self.inst.state.pid, self.inst.state.pid_start)

    def result(self):
        return None

    def observe(self):
        return "started"

    def events(self, *more):
        return Events((), more, (self.inst.state.pid,))

    def settled(self):
        return True


class Start:
    def __init__(self, inst, flavour, attachment):
        self.inst, self.watch, self.flavour = inst, Watch(inst), flavour
        self.output = None if attachment else subprocess.DEVNULL

    def begin(self):
        env = {**os.environ, "FLAVOUR": self.flavour}
        self.child = subprocess.Popen(self.inst.work.command, env=env, stdout=self.output, stderr=self.output)
        self.inst.timeline.mark("T1")
        self.inst.state.pid = self.child.pid
        self.inst.state.pid_start = processes.start_time(self.child.pid)

    def attend(self):
        return Exit(self.child.wait(), "workload")

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Backend:
    mode = "strange"
    features = Features()
    options = (Option("flavour", "strange: what it tastes of (default: nothing)", metavar="NAME"),)

    def __init__(self, flavour="nothing"):
        self.flavour = flavour

    def needs(self):
        yield Need("spoon", False, "not in the drawer", "tasting", "look in the dishwasher")

    def check(self, work):
        return [Problem("it has no network", "network: none")] if work.network != "none" else []

    def explain(self, work):
        yield Step("taste", self.flavour)

    def prepare(self, inst, attachment=None):
        return Start(inst, self.flavour, attachment)

    def watch(self, inst):
        return Watch(inst)

    def signal(self, inst, signum):
        os.kill(inst.state.pid, signal.SIGKILL)

    def exec(self, inst, command):
        return 0

    def undo(self, inst, entry):
        pass
'''


@pytest.fixture
def strange(tmp_path, monkeypatch, own_root):
    """The mode, installed in a separate folder."""
    (tmp_path / "strange.py").write_text(BACKEND)
    (tmp_path / "strange-1.dist-info").mkdir()
    (tmp_path / "strange-1.dist-info/entry_points.txt").write_text("[vmctl.backends]\nstrange = strange:Backend\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert "strange" in backends.modes()
    return tmp_path


RUN = ("run", "--mode", "strange", "--network", "none")


def test_it_runs_with_its_options(strange):
    assert ok(*RUN, "any", "--", "sh", "-c", "echo $FLAVOUR") == "nothing\n"
    assert ok(*RUN, "--flavour", "salt", "any", "--", "sh", "-c", "echo $FLAVOUR") == "salt\n"
    assert vmctl(*RUN, "any", "--", "sh", "-c", "exit 5").code == 5
    assert ok("ps", "-aq") == ""


def test_its_options_are_no_others(strange):
    refusal = vmctl("run", "--flavour", "salt", "tiny", "--", "true")
    assert (refusal.code, refusal.out) == (125, "")
    assert "--flavour is an option of mode strange" in refusal.err
    assert "--accel is an option of mode vm" in vmctl(*RUN, "--accel", "tcg", "any", "--", "true").err
    assert "no network" in refused("run", "--mode", "strange", "any", "--", "true")


def test_help_shows_the_options_of_every_mode(strange):
    output = ok("run", "--help")
    assert "--flavour NAME" in output
    assert "--accel {auto,kvm,tcg}" in output


def test_doctor_shows_its_needs(strange):
    checks = {check["name"]: check for check in json.loads(vmctl("doctor", "--format", "json").out)}
    assert checks["spoon"] == {
        "name": "spoon",
        "ok": False,
        "found": "not in the drawer",
        "needed_by": "strange: tasting",
        "hint": "look in the dishwasher",
    }
    assert checks["cgroups"]["needed_by"].startswith("container, host")


@pytest.mark.parametrize(
    ("line", "broken", "reason"),
    [
        ("class Watch:", "raise OSError('no spoon')\nclass Watch:", "no spoon"),
        ("class Watch:", "class Watch", "expected ':'"),
        ("self.flavour = flavour", "self.flavour = flavour.taste", "no attribute 'taste'"),
        ("options = ", "choices = ", "no attribute 'options'"),
        ("yield Need", "raise RuntimeError('drawer stuck')\n        yield Need", "drawer stuck"),
    ],
)
def test_a_broken_one_stops_no_other(strange, line, broken, reason):
    (strange / "strange.py").write_text(BACKEND.replace(line, broken, 1))
    checks = {check["name"]: check for check in json.loads(vmctl("doctor", "--format", "json").out)}
    assert checks["mode strange"]["ok"] is False
    assert reason in checks["mode strange"]["found"]
    assert "cgroups" in checks
    assert ok("ps", "-aq") == ""


def test_one_that_became_broken_leaves_removable_instances(strange):
    work = strange / "work.yaml"
    work.write_text("image: any\nnetwork: none\ncommand: [sleep, '1000']\n")
    ok("up", "--mode", "strange", "--name", "one", str(work))
    pid = json.loads(ok("inspect", "one"))[0]["pid"]
    (strange / "strange.py").write_text("raise RuntimeError('no spoon')\n")
    try:
        assert "no spoon" in vmctl("rm", "one").err
        assert ok("rm", "-f", "one") == "one\n"
        assert ok("ps", "-aq") == ""
    finally:
        os.kill(pid, 9)


def test_odd_options_are_no_internal_error(strange):
    (strange / "strange.py").write_text(BACKEND.replace("what it tastes of", "100 % of it"))
    assert "100 % of it" in ok("up", "--help")
    (strange / "strange.py").write_text(BACKEND.replace('"flavour"', '"quiet"', 1))
    conflict = vmctl("up", "--mode", "strange", "work.yaml")
    assert conflict.code == 125
    assert "vmctl: argument -q/--quiet: conflicting option string: --quiet" in conflict.err


def test_a_footprint_that_fails_is_none(strange):
    able = BACKEND.replace("class Backend:", "from vmctl.backend import HasFootprint\n\nclass Backend(HasFootprint):")
    work = strange / "work.yaml"
    work.write_text("image: any\nnetwork: none\ncommand: [sleep, '1000']\n")
    (strange / "strange.py").write_text(able)
    ok("up", "--mode", "strange", "--name", "one", str(work))
    document = json.loads(ok("inspect", "one"))[0]
    assert (document["status"], document["footprint"]) == ("running", None)
    ok("stop", "one")
    ok("rm", "one")


def test_an_undo_that_fails_hides_no_other(strange):
    broken = BACKEND.rpartition("        pass\n")[0] + "        raise RuntimeError('no spoon')\n"
    (strange / "strange.py").write_text(broken)
    work = strange / "work.yaml"
    work.write_text("image: any\nnetwork: none\ncommand: ['true']\n")
    ok("up", "--mode", "strange", "--name", "one", str(work))
    inst = instance.load("one")
    process = subprocess.Popen(["sleep", "1000"])
    inst.journal.record("process", pid=process.pid, start=processes.start_time(process.pid))
    inst.journal.record("spoon", place="drawer")
    assert "spoon drawer" in vmctl("rm", "one").err
    assert process.wait(10) == -9
    assert ok("rm", "-f", "one") == "one\n"


def test_doctor_goes_on_with_one_that_cannot_be_loaded(strange):
    os.unlink(strange / "strange.py")
    checks = {check["name"]: check for check in json.loads(vmctl("doctor", "--format", "json").out)}
    assert checks["mode strange"]["ok"] is False
    assert checks["QEMU"]["found"]
    assert "vm, container or host" in ok("up", "--help")


def test_an_ability_it_has_not_is_refused(strange, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text("image: tiny\ncommand: [sleep, '1000']\nnetwork: none\n")
    ok("up", "--mode", "strange", str(path))
    try:
        assert "mode strange cannot read the writable layer" in refused("diff", "odd")
        assert json.loads(ok("inspect", "odd"))[0]["footprint"] is None
    finally:
        ok("rm", "-f", "odd")
