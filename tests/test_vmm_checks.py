"""Workloads that vm mode refuses before a start, and the explanation of a start that is not taken."""

import os

import pytest

from vmctl import paths
from vmctl.spec.workload import File, Resources, VmOptions, Volume, Workload
from vmm.backend import VmBackend

WORK = Workload("web", "tiny", ("true",))


def problems(**changes):
    return [problem.text for problem in VmBackend().check(WORK._replace(**changes))]


def test_a_good_workload_has_no_problems(guest_root):
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image": "tinny"}, "tinny"),
        ({"vm": VmOptions(kernel="/no/such/vmlinuz")}, "/no/such/vmlinuz"),
        ({"vm": VmOptions(boot="system")}, "it has no systemd"),
        ({"vm": VmOptions(cloud_init="extra.yaml")}, "cloud_init"),
        ({"volumes": (Volume("/no/such/data", "/data"),)}, "/no/such/data does not exist"),
        ({"network": "host"}, "host's network"),
        ({"resources": Resources(memory_bytes=1024**2)}, "memory"),
        ({"env": {"not a name": "x"}}, "not a name"),
        ({"files": (File("/a\nb"),)}, "control character"),
        ({"name": "n" * 63, "volumes": (Volume("/no/such/data", "/data"),)}, "/no/such/data"),
    ],
)
def test_a_problem_names_its_key(guest_root, changes, text):
    found = problems(**changes)
    assert len(found) == 1
    assert text in found[0]


def test_everything_is_reported_at_once(guest_root):
    assert len(problems(network="host", image="tinny", volumes=(Volume("/no/such", "/a"),))) == 3


def test_state_directory_with_a_long_path(guest_root, monkeypatch):
    monkeypatch.setenv("VMCTL_ROOT", os.path.join(guest_root, "x" * 100))
    assert any("bytes longer than the kernel allows" in text for text in problems())


def test_without_qemu(guest_root, monkeypatch):
    monkeypatch.setattr("vmm.qemu.which", lambda program: None)
    assert problems() == ["QEMU is not installed"]


def test_daemon_has_no_network(guest_root, monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu:///system")
    assert len(problems()) == 1
    assert problems(network="none") == []


def test_explain_shows_all_steps_and_takes_none(guest_root):
    work = WORK._replace(files=(File("/srv/index.html", "<h1>hello</h1>"),), resources=Resources(cpus=1.5))
    steps = {step.what: step.raw for step in VmBackend().explain(work)}
    assert "<vcpu>2</vcpu>" in steps["domain XML"]
    assert "-device" in steps["QEMU"]
    assert steps["QEMU"].startswith("/")
    assert any("mke2fs" in raw for raw in steps.values())
    assert any("/srv/index.html" in raw for raw in steps.values())
    assert not os.path.exists(paths.instances_root())
    assert not os.path.exists(paths.run_root())
