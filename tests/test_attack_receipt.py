"""Where a workload and its commands run: as they report it from inside, and what contradicts it is a failure."""

import os
import uuid
from types import SimpleNamespace

import pytest
from support.attack_table import callers, modes

from bench.probes import tool
from containers import reports
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.linux import processes, syscalls
from vmctl.spec.workload import Workload
from vmm import files, receipt

pytestmark = pytest.mark.timeout(900)
WAITS = "image: tiny\ncommand: [sleep, '100000']\n"


@pytest.fixture(scope="module")
def started(caller, mode):
    """The name of a running instance."""
    name = f"receipt-{mode}-{caller.name}"
    caller.ok("up", "-q", "--mode", mode, "--name", name, caller.write(f"{name}.yaml", WAITS))
    yield name
    caller.vmctl("rm", "-f", name)


def seen(caller, name, path):
    return caller.ok("exec", name, "--", "cat", path).strip()


@modes("container", "host", "vm")
def test_inspect_has_what_is_seen_inside(caller, mode, started):
    found = caller.inspect(started)["receipt"]
    assert found["boot_id"] == seen(caller, started, "/proc/sys/kernel/random/boot_id")
    assert found["kernel"] == seen(caller, started, "/proc/sys/kernel/osrelease")
    assert (found["boot_id"] != processes.boot_id()) == (mode == "vm")
    if mode == "vm":
        document = caller.inspect(started)
        assert found["machine"] == next(one["uuid"] for one in document["journal"] if one["kind"] == "domain")
        assert uuid.UUID(found["machine"])
        return
    pid = caller.inspect(started)["pid"]
    inodes = {name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in found["namespaces"]}
    assert found["namespaces"] == inodes
    assert len(inodes) == 7
    ours = {name for name, inode in inodes.items() if inode == os.stat(f"/proc/self/ns/{name}").st_ino}
    assert ours == set() if mode == "container" else "pid" in ours


@pytest.mark.attack("a process of the host takes the place of a container, so that `exec` runs in it")
@modes("container")
@callers("root")
def test_a_container_that_is_a_process_of_the_host(caller, mode, canary):
    spec = caller.write("lie.yaml", WAITS + "container: {userns: host}\n")  # the kernel joins no user namespace twice
    caller.ok("up", "-q", "--mode", mode, "--name", "lie", spec)
    inst = instance.load("lie")
    pid, start = inst.state.pid, inst.state.pid_start
    inst.state.pid, inst.state.pid_start = canary.process.pid, processes.start_time(canary.process.pid)
    inst.save()
    error = caller.refused("exec", "lie", "--", "cat", canary.path)
    assert "outside of the instance, in another namespace" in error
    inst.state.pid, inst.state.pid_start = pid, start
    inst.save()
    assert caller.ok("exec", "lie", "--", "echo", "here") == "here\n"
    caller.ok("rm", "-f", "lie")


@modes("vm")
@callers("root")
def test_a_command_in_another_kernel(caller, mode, started):
    """As the guest has recorded it, it is another boot than that of the kernel that answers."""
    path = files.marks(instance.load(started))
    with open(path, encoding="utf-8") as file:
        kept = file.read()
    other = kept.replace(caller.inspect(started)["receipt"]["boot_id"], str(uuid.uuid4()))
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(other)
        assert f"does not run in the guest {started}" in caller.vmctl("exec", started, "--", "true").err
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(kept)
    assert caller.ok("exec", started, "--", "echo", "here") == "here\n"


class Guest:
    name, id, state = "web", "0123abcd", SimpleNamespace(own={})


def test_a_guest_on_the_hosts_kernel():
    line = "init 6.1.0 {} {}"
    with pytest.raises(VmctlError, match="runs on the kernel of this host"):
        receipt.check(Guest, line.format(processes.boot_id(), ""))
    with pytest.raises(VmctlError, match="is the machine"):
        receipt.check(Guest, line.format(uuid.uuid4(), uuid.uuid4()))
    receipt.check(Guest, line.format(uuid.uuid4(), ""))
    receipt.check(Guest, "init")  # of an earlier vmctl


def test_a_workload_in_a_namespace_of_the_host():
    folder = reports.own_namespaces()
    ours = reports.namespaces(folder)
    os.close(folder)
    reports.check_start("web", ours, 0)
    with pytest.raises(VmctlError, match="would run in a namespace of the host: pid"):
        reports.check_start("web", ours, syscalls.CLONE_NEWPID)
    with pytest.raises(VmctlError, match="in another namespace than asked for: net"):
        reports.check_start("web", {**ours, "net": 1}, 0)


@pytest.mark.parametrize("boot_id", ["ours", "none"])
def test_a_sample_of_a_guest_on_the_hosts_kernel(own_root, boot_id):
    """Or of one that has reported nothing."""
    inst = instance.create(Workload(name="lie", image="tiny"), "vm")
    with open(files.marks(inst), "w", encoding="utf-8") as file:
        file.write(f"init 6.1.0 {processes.boot_id()} \n" if boot_id == "ours" else "mounts\n")
    with pytest.raises(VmctlError, match="elsewhere than mode vm" if boot_id == "ours" else "has not reported"):
        tool.ran(inst)
