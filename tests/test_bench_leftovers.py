"""Processes that a killed worker leaves are ended, and no others."""

import os
import signal
import subprocess

import pytest
from support.commands import ok, start, wait_for

from bench import leftovers, result, session
from vmctl.instances import instance

# a process that the worker of one sample starts, and a child of that process
FAMILY = "sleep 1000 & (setsid sleep 1000 &) ; echo ready; wait"


def family(measurement, name):
    process = subprocess.Popen(["sh", "-c", FAMILY], env=leftovers.marked(measurement, name), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def marks(measurement):
    return sorted(leftovers._running(f"VMCTL_BENCH_SAMPLE={measurement}/".encode(), exact=False).values())


def test_a_sample_is_ended_with_all_that_it_has_started_and_no_other():
    one, other, elsewhere = family("m1", "bench-a"), family("m1", "bench-ab"), family("m2", "bench-a")
    try:
        wait_for(lambda: len(marks("m1")) == 6 and len(marks("m2")) == 3)
        assert leftovers.end("m1", "bench-a") == {"bench-a"}
        assert set(marks("m1")) == {b"VMCTL_BENCH_SAMPLE=m1/bench-ab"}
        assert one.wait(120) == -signal.SIGKILL
        assert leftovers.end("m1") == {"bench-ab"}
        assert marks("m1") == []
        assert leftovers.end("m1") == set()
        assert len(marks("m2")) == 3
        assert elsewhere.poll() is None
    finally:
        leftovers.end("m1")
        leftovers.end("m2")
        for process in (one, other, elsewhere):
            process.wait(120)
            process.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="the modes need root here")
def test_a_worker_that_has_outlived_its_measurement_is_ended_when_that_goes_on(guest_root, tmp_path):
    """`vmctl bench` is killed during a sample that would never end by itself."""
    spec, folder = tmp_path / "slow.yaml", tmp_path / "out"
    spec.write_text("image: tiny\ncommand: [sleep, '1000']\nready: {log: never, timeout: 900s}\n")
    words = ("--modes", "container", "--metrics", "boot", "--runs", "1", "--time-limit", "2s", "--out", str(folder))
    process = start("bench", str(spec), *words)
    (name,) = wait_for(instance.names)
    process.kill()
    process.communicate()
    measurement = session.resume(str(folder)).head.id
    assert marks(measurement)
    said = start("bench", "--resume", str(folder))
    said.communicate(timeout=120)
    assert said.returncode == 1  # no sample of the only mode
    assert name not in instance.names()
    assert instance.names() == []
    assert marks(measurement) == []
    assert {one.mode for one in result.read(str(folder)).samples if one.error} == {"container"}
    ok("bench", "verify", str(folder))
