"""Jobs that wait for each other run in processes: in order, at the same time, and never longer than their parent."""

import os
import signal
import subprocess
import sys
import time

from support.commands import wait_for

from vmctl.errors import VmctlError
from vmctl.stacks import workers
from vmctl.stacks.workers import Job


def run(*jobs, **options):
    events = []
    failures = workers.run(jobs, lambda *event: events.append(event), **options)
    return failures, events


def test_jobs_that_do_not_wait_run_at_the_same_time(tmp_path):
    """Each of them ends only when it has seen the others."""

    def meet(name):
        def act(send):
            (tmp_path / name).touch()
            wait_for(lambda: len(os.listdir(tmp_path)) == 5)

        return act

    failures, events = run(*(Job(f"j{n}", meet(f"j{n}")) for n in range(5)))
    assert failures == []
    assert sum(event == workers.DONE for _, event, _ in events) == 5


def test_a_job_begins_when_all_it_needs_has_happened(tmp_path):
    def first(send):
        send("started", value=7)
        wait_for((tmp_path / "second").exists)  # the event is enough: it need not have ended
        (tmp_path / "first").touch()

    def third(send):
        assert (tmp_path / "first").exists()

    jobs = [
        Job("third", third, (("first", workers.DONE), ("second", workers.DONE))),
        Job("second", lambda send: (tmp_path / "second").touch(), (("first", "started"),)),
        Job("first", first),
    ]
    failures, events = run(*jobs)
    assert failures == []
    assert ("first", "started", {"value": 7}) in events
    assert [name for name, event, _ in events if event == workers.DONE][-1] == "third"


def fails(send):
    raise VmctlError("it is broken", hint="mend it", detail="the last line")


def sleeps(send):
    time.sleep(3600)


def test_after_a_failure_the_others_are_ended_and_nothing_else_begins():
    jobs = [Job("long", sleeps), Job("bad", fails), Job("later", sleeps, (("bad", workers.DONE),))]
    failures, events = run(*jobs)
    assert failures[0].job == "bad"
    assert (str(failures[0].error), failures[0].error.hint, failures[0].error.detail) == (
        "it is broken",
        "mend it",
        "the last line",
    )
    assert ("later", workers.LEFT, {}) in events


def test_or_the_others_go_on(tmp_path):
    jobs = [
        Job("bad", fails),
        Job("good", lambda send: None),
        Job("next", lambda send: (tmp_path / "next").touch(), (("good", workers.DONE),)),
        Job("never", sleeps, (("bad", workers.DONE),)),
    ]
    failures, events = run(*jobs, go_on=True)
    assert [failure.job for failure in failures] == ["bad"]
    assert (tmp_path / "next").exists()
    assert ("never", workers.LEFT, {}) in events


def test_a_job_whose_process_is_killed_has_failed():
    failures, _ = run(Job("killed", lambda send: os.kill(os.getpid(), signal.SIGKILL)))
    assert "killed: the process that was working on it was killed" in str(failures[0].error)


def test_an_internal_error_is_reported():
    failures, _ = run(Job("odd", lambda send: {}["nothing"]))
    assert "odd: internal error: KeyError: 'nothing'" in str(failures[0].error)


def test_jobs_at_once_are_limited(tmp_path):
    def alone(send):
        assert os.listdir(tmp_path) == []
        (tmp_path / "here").touch()
        time.sleep(0.05)
        (tmp_path / "here").unlink()

    failures, _ = run(*(Job(f"j{n}", alone, weight=3) for n in range(4)), limit=5)
    assert failures == []


PARENT = """
import os, sys, time
from vmctl.stacks import workers
def act(send):
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(3600)
workers.run([workers.Job("x", act)], lambda *event: None)
"""


def test_no_job_outlives_its_parent(tmp_path):
    path = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)])
    pid = int(wait_for(lambda: path.exists() and path.read_text()))
    parent.kill()
    parent.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), timeout_s=60)
