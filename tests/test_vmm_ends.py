"""Why a guest ended and what it waits for: panic, power-off, reboot, a killed QEMU, a disk without a boot loader."""

import json
import os
import signal
import subprocess
import time

import pytest
from support.commands import inspect, ok, vmctl, wait_for
from support.commands import start as spawn

from vmctl import engine, paths
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.linux import processes
from vmctl.net import switch
from vmctl.spec.workload import Workload
from vmm import files, watch
from vmm.backend import VmBackend

REBOOT = "echo run >>/runs; wc -l </runs; [ $(wc -l </runs) -lt 2 ] || exit 5; reboot -f; sleep 60"


@pytest.fixture
def made(guest_root):
    """A guest that was never started, to which texts are given."""
    inst = engine.create(Workload("made", "tiny", ("true",), network="none"), VmBackend())
    inst.state.boot = "direct"
    yield inst
    engine.rm("made", force=True)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


@pytest.mark.parametrize(
    ("console", "log", "expected"),
    [
        (
            "[ 1.0] Kernel panic - not syncing: no init\n[ 1.1] Call Trace:\n",
            "",
            ("failed", "its kernel panicked: no init"),
        ),
        ("[ 1.0] reboot: Power down\n", "", ("exited", "it was switched off from inside")),
        ("[ 1.0] reboot: System halted\n", "", ("exited", "it was halted from inside")),
        ("", "", ("failed", "QEMU was killed")),
        (f"[ 9.0] reboot: Power down\n{watch.AGAIN}\n", "", ("failed", "QEMU was killed")),  # of the start before
        (
            "",
            "LC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n-name guest=error\nqemu-system-x86_64: no memory\n",
            ("failed", "QEMU ended: no memory"),
        ),
    ],
)
def test_the_cause_of_an_end(made, console, log, expected):
    write(made.console_log, console)
    write(files.qemu_log(made), log)
    assert watch.cause(made) == expected


def test_a_tail_has_no_arguments_of_qemu(made):
    write(files.qemu_log(made), "/usr/bin/qemu-system-x86_64 \\\n-name guest=x,debug=on \\\n-msg timestamp=on\n")
    assert (watch.qemu_tail(made), watch.console_tail(made)) == ("", "")


def test_a_guest_that_boots_for_ever_is_given_up(made):
    write(files.marks(made), "init\nmounts\n" * watch.MAX_REBOOTS)
    made.state.pid, made.state.pid_start = os.getpid(), processes.start_time(os.getpid())
    assert watch.GuestWatch(made).observe() == f"mounts (rebooted {watch.MAX_REBOOTS - 1} times)"
    write(files.marks(made), "init\nmounts\n" * (watch.MAX_REBOOTS + 1))
    with pytest.raises(VmctlError, match=f"made rebooted {watch.MAX_REBOOTS} times and did not get ready"):
        watch.GuestWatch(made).observe()
    write(files.marks(made), "init\nexec\n" * 50)  # it has been ready
    assert watch.GuestWatch(made).observe() == "exec"
    assert VmBackend().reboots(made) == 49


def test_a_guest_that_reboots_boots_again_with_its_disk(guest_root):
    result = vmctl(
        "run", "--mode", "vm", "--network", "none", "--keep", "--name", "boots", "tiny", "--", "sh", "-c", REBOOT
    )
    assert (result.code, result.out) == (5, "1\n2\n"), result
    (document,) = json.loads(ok("inspect", "boots"))
    assert (document["reboots"], document["starts"], document["exit_code"]) == (1, 1, 5)
    ok("rm", "boots")


def test_up_fails_as_in_a_container_if_the_command_is_not_there(guest_root, tmp_path):
    path = str(tmp_path / "nope.yaml")
    write(path, "image: tiny\ncommand: [/etc/passwd]\nnetwork: none\n")
    found = [vmctl("up", "--mode", mode, path) for mode in ("container", "vm")]
    assert [result.code for result in found] == [126, 126]
    error = found[1].err.splitlines()[-1]  # a slow boot reports its progress before
    assert found[0].err.startswith(error)  # only the host's kernel gives the reason
    assert error.startswith("vmctl: the command /etc/passwd cannot be executed")
    assert "nope" not in instance.names()


@pytest.mark.parametrize(("verb", "signum", "code"), [("run", signal.SIGINT, 130), ("up", signal.SIGTERM, 143)])
def test_a_signal_ends_a_boot_at_once(guest_root, tmp_path, verb, signum, code):
    path = str(tmp_path / "boots.yaml")
    write(path, "image: tiny\ncommand: [sleep, '1000']\n")
    words = (path,) if verb == "up" else ("--name", "boots", "tiny", "--", "sleep", "1000")
    command = spawn(verb, "--mode", "vm", *words)
    wait_for(lambda: any(row["name"] == "boots" and row["pid"] for row in json.loads(ok("ps", "--format", "json"))))
    began_s = time.monotonic()
    for _ in range(2):  # the second one must not leave anything
        command.send_signal(signum)
        time.sleep(0.02)
    assert command.wait(timeout=60) == code
    assert time.monotonic() - began_s < 20
    assert b"NAME" not in command.communicate()[1]
    assert instance.names() == []
    assert not switch.exists()
    assert os.listdir(os.path.join(paths.state_root(), "leases")) == []


@pytest.mark.parametrize("flags", [(), ("-i",)], ids=["attached", "with input"])
def test_a_guest_ends_with_the_command_that_runs_it(guest_root, flags):
    """The command is killed while the guest boots: QEMU ends, the end has a name, and nothing is left."""
    command = spawn("run", *flags, "--mode", "vm", "--name", "tied", "tiny", "--", "sleep", "1000")
    killed_with(command, "tied")
    assert (inspect("tied")["exit_code"], inspect("tied")["exit_source"]) == (137, "signal")
    ok("rm", "tied")
    assert os.listdir(paths.run_root()) in ([], ["net"])


def test_the_guest_of_a_copy_ends_with_its_command(guest_root):
    """One that does not run is read by another guest on its disk."""
    ok("create", "--mode", "vm", "--network", "none", "--name", "lent", "tiny", "--", "sleep", "1000")
    command = spawn("cp", "lent:/etc/passwd", "-")
    wait_for(lambda: [name for name in ok("ps", "-q").split() if name.startswith("files-")])
    (name,) = [name for name in ok("ps", "-q").split() if name.startswith("files-")]
    killed_with(command, name)
    ok("rm", name, "lent")


def killed_with(command, name):
    """Kill the command and wait until the guest that it runs has ended."""
    wait_for(lambda: name in ok("ps", "-q").split())
    pid = inspect(name)["pid"]
    began = processes.start_time(pid)
    command.kill()
    command.communicate()
    wait_for(lambda: inspect(name)["status"] == "exited")
    assert not processes.alive(pid, began)
    recorder = instance.load(name).state
    assert not processes.alive(recorder.supervisor_pid, recorder.supervisor_start)


def test_a_disk_without_a_boot_loader(guest_root, tmp_path):
    disk, name = str(tmp_path / "plain.raw"), f"plain-{os.getpid()}"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk, "8M"], check=True)
    ok("image", "import", disk, "--name", name)
    try:
        write(str(tmp_path / "plain.yaml"), f"image: {name}\nnetwork: none\n")
        result = vmctl("up", "--mode", "vm", "--keep", str(tmp_path / "plain.yaml"))
        assert result.code == 125
        assert "nothing bootable was found on the disk of plain" in result.err
        assert "not a bootable disk" in ok("logs", "--boot", "plain")
        assert result.err.endswith("hint: `vmctl logs --boot plain` shows its console\n")
        ok("rm", "plain")
        result = vmctl("run", "--mode", "vm", name)
        assert "nothing bootable was found" in result.err
        assert result.err.endswith("hint: repeat it with --keep; then `vmctl logs --boot NAME` shows its console\n")
    finally:
        ok("image", "rm", "-f", name)
