"""The guest's init in real guests (TCG): what a workload sees, and how its end reaches the host."""

import os
import re
import socket
import threading

import pytest
from support.guest_boot import ADDRESS, MAC, Guest

from vmm import guest
from vmm.seed import SeedFile


@pytest.fixture
def machine(tmp_path):
    return Guest(tmp_path)


def test_a_workload_sees_its_user_folder_environment_files_and_streams(machine):
    files = (SeedFile("/srv/new/it's a file", b"content\n", 0o640), SeedFile("/run/vmctl/limits", b"pids.max 77\n"))
    script = """
        cat; id; pwd; echo "$GREETING"; cat "/srv/new/it's a file"; hostname; cat /sys/fs/cgroup/workload/pids.max
        echo reopened >/dev/stdout; ls /proc/self/fd | wc -l; env | cut -d= -f1 | sort | tr '\\n' ' '
        stat -c '%a %U' "/srv/new/it's a file" >&2; exit 7"""
    env = {"GREETING": "it's two  words"}
    machine.seed("sh", "-c", script, env=env, workdir="/srv/new", user="1000:0", files=files)

    with socket.create_server(machine.path("stdin"), family=socket.AF_UNIX) as listener:
        threading.Thread(target=feed, args=(machine, listener)).start()
        machine.extra = ["-chardev", f"socket,id=stdin,path={machine.path('stdin')}"]
        machine.extra += ["-device", "virtserialport,chardev=stdin,name=org.vmctl.stdin"]
        outcome = machine.boot()

    outcome.marks[0] = re.sub(r"^init [0-9.]+[-\w]* [0-9a-f-]{36} ([0-9a-f-]{36})? [0-9.]+$", "init", outcome.marks[0])
    assert outcome.marks == ["init", "mounts", "seed", "network", "exec", "exit 7 workload"]
    assert outcome.stdout.splitlines() == [
        "typed",
        "uid=1000 gid=0(root)",
        "/srv/new",
        "it's two  words",
        "content",
        "guest",
        "77",
        "reopened",
        "4",  # 0, 1, 2 and the one ls reads: nothing of ours is left open
        "GREETING HOME PATH PWD SHLVL ",  # the last two are the shell's own
    ]
    assert outcome.stderr == "640 root\n"


def feed(machine, listener):
    """Type a line when the workload runs, and then end of file."""
    connection, _ = listener.accept()
    connection.sendall(b"typed\n")
    machine.wait_until(lambda: "typed" in machine.read("stdout"))
    connection.close()


def test_the_end_by_a_signal_is_told_from_a_code_and_orphans_do_not_delay_it(machine):
    machine.seed("sh", "-c", "(echo kept; exec sleep 1000) & usleep 300000; kill -9 $$")
    outcome = machine.boot()
    assert outcome.end == "exit 137 signal"
    assert outcome.stdout == "kept\n"


def test_a_code_above_128_is_the_workloads_own(machine):
    machine.seed("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert machine.boot().end == "exit 137 workload"


@pytest.mark.long  # test_contract.py: test_memory_has_a_limit
def test_a_workload_that_the_kernel_killed_for_memory(machine):
    machine.seed("awk", 'BEGIN { x = "0123456789abcdef"; while (1) x = x x }')
    assert machine.boot().end == "exit 137 oom"


@pytest.mark.long  # test_contract.py: test_run_gives_the_commands_code
def test_a_command_that_is_not_in_the_image(machine):
    machine.seed("httpdd", "-f")
    assert machine.boot().end == "error 127 command not found: httpdd"


def test_a_seed_that_cannot_be_applied(machine):
    machine.seed("true", files=(SeedFile("/etc/passwd/file", b"x"),))
    assert machine.boot().end == "error 125 the file /etc/passwd/file could not be written"


def test_a_seed_that_is_none(machine):
    machine.seed("true")
    os.truncate(machine.path("seed"), 0)
    os.truncate(machine.path("seed"), 65536)
    assert machine.boot().end == "error 125 the seed could not be mounted"


def test_a_network_device_that_is_not_there(machine):
    machine.seed("true", address=ADDRESS)
    assert machine.boot().end == f"error 125 the network could not be configured: macaddress: {MAC}"


def test_power_off_on_order_and_a_signal_to_the_workload(machine):
    machine.seed("sh", "-c", "trap 'echo caught' INT; echo ready; while :; do usleep 50000; done")
    with machine.running():
        machine.wait_until(lambda: "ready" in machine.read("stdout"))
        machine.order("signal 2")
        machine.wait_until(lambda: "caught" in machine.read("stdout"))
        machine.order("poweroff")
    assert machine.outcome().end == "exec"


def test_the_probe_says_so_and_powers_off(machine):
    machine.seed("true")
    command = machine.command()
    command[command.index(guest.KERNEL_ARGS)] += " vmctl.probe"
    machine.command = lambda: command
    outcome = machine.boot()
    assert "probe ok" in outcome.console
    assert outcome.marks == []
