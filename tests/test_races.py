"""Two commands at the same instance, or at two instances that have the same name one after the other."""

import os
import threading
import time

import pytest

from containers.reports import revive
from vmctl import backends, engine, removal
from vmctl.errors import NotFoundError, StateError, VmctlError
from vmctl.instances import instance
from vmctl.linux import processes
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.spec.workload import Workload

WORK = Workload("web", "tiny")


@pytest.fixture
def backend(own_root):
    return backends.load("host")


def test_a_lock_is_that_of_one_instance_not_of_a_later_one_of_its_name(backend):
    old = instance.create(WORK, "host")
    removal.remove(old, backend)
    new = instance.create(WORK, "host")
    with pytest.raises(NotFoundError), old.locked():
        pass
    with pytest.raises(NotFoundError):
        old.recall()
    with new.locked():
        assert new.state.id == new.id


def test_an_end_is_not_recorded_in_a_later_instance_of_its_name(backend):
    old = instance.create(WORK, "host")
    old.state.status = "running"
    removal.remove(old, backend)
    new = instance.create(WORK, "host")
    with pytest.raises(NotFoundError):
        engine.status(old)
    assert instance.load("web").state.id == new.id


@pytest.mark.parametrize("start", ["up", "run"])
def test_a_failed_start_removes_no_later_instance_of_its_name(backend, monkeypatch, start):
    later = []
    undone = removal.remove

    def removed(inst, backend):
        undone(inst, backend)
        later.append(instance.create(WORK, "host"))

    monkeypatch.setattr(removal, "remove", removed)
    monkeypatch.setattr(engine, "bring_up", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.up(WORK, "host") if start == "up" else engine.run(WORK, "host")
    assert instance.load("web").id == later[0].id


def test_rm_of_an_instance_that_is_being_started_waits_and_is_refused_once_it_runs(backend):
    inst = instance.create(WORK, "host")
    locked = threading.Event()

    def start():
        with inst.locked():
            locked.set()
            time.sleep(0.3)
            inst.state.status, inst.state.pid = "running", os.getpid()
            inst.state.pid_start = processes.start_time(os.getpid())
            inst.save()

    thread = threading.Thread(target=start)
    thread.start()
    locked.wait()
    with pytest.raises(StateError, match="is running"):
        engine.rm("web")
    thread.join()
    assert instance.names() == ["web"]


@pytest.mark.parametrize("start", ["up", "run"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("no spoon"), "no spoon"), (KeyboardInterrupt(), "web was interrupted"), (SystemExit(143), "web was")],
)
def test_a_removal_that_fails_does_not_hide_the_first_error(backend, monkeypatch, start, error, reason):
    def fail(*_, **__):
        raise error

    def refuse(*_):
        raise OSError(16, "busy")

    monkeypatch.setattr(engine, "bring_up", fail)
    monkeypatch.setattr(removal, "remove", refuse)
    with pytest.raises(VmctlError, match=f"^{reason}.*; and .*busy"):
        engine.up(WORK, "host") if start == "up" else engine.run(WORK, "host")


def test_a_container_that_was_killed_before_it_could_report_is_an_error():
    assert "web could not be started" in str(revive(b"", "web"))


def test_a_group_that_another_command_removes_reads_as_empty():
    group, end_s = Cgroup("races.0badcafe"), time.monotonic() + 1.5
    errors = []

    def look():
        while time.monotonic() < end_s:
            try:
                group.pids(), group.oom_kills(), group.memory_bytes()
            except OSError as error:
                errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    while time.monotonic() < end_s:
        group.create(Limits())
        group.remove()
    thread.join()
    assert errors == []
