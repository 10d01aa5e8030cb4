"""The guest's sshd and `launch`: one guest (TCG), and a number of commands in it."""

import os
import re
import signal
import socket
import subprocess
import sys

import paramiko
import pytest
from support.guest_boot import ADDRESS, MAC, PATH, Guest

from vmm.guest import agent
from vmm.seed import SeedFile, workload_words

ACCOUNTS = (
    SeedFile("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002::/srv:/bin/sh\n"),
    SeedFile("/etc/group", b"root:x:0:\napp:x:1002:\nextra:x:1003:other,app\n"),
    SeedFile("/srv/text", b"echo no program\n", 0o755),
    SeedFile("/srv/plain", b"#!/bin/sh\n", 0o644),
    SeedFile("/srv/secret", b"#!/bin/sh\n", 0o700),
    SeedFile("/srv/script", b"#!/bin/sh\necho $0 $1\n", 0o755),
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    machine = Guest(tmp_path_factory.mktemp("guest"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        machine.port = free.getsockname()[1]
    forward = f"hostfwd=tcp:127.0.0.1:{machine.port}-{ADDRESS.address}:22"
    machine.extra = ["-netdev", f"user,id=net,restrict=on,{forward}"]
    machine.extra += ["-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile=", "-device", "virtio-rng-pci"]
    machine.seed("sleep", "1000", files=ACCOUNTS, address=ADDRESS)
    with machine.running(timeout_s=200):
        machine.wait_until(lambda: "ssh" in machine.read("marks"))
        yield machine
        machine.order("poweroff")
    assert sorted(mark.split()[0] for mark in machine.outcome().marks) == sorted(
        ["init", "mounts", "seed", "network", "exec", "ssh"]
    )


@pytest.fixture(scope="module")
def transport(machine):
    with socket.create_connection(("127.0.0.1", machine.port), timeout=120) as connection:
        transport = paramiko.Transport(connection)
        transport.connect(username="root", pkey=paramiko.Ed25519Key.from_private_key_file(machine.path("client_key")))
        yield transport
        transport.close()


@pytest.fixture
def execute(transport):
    def execute(*argv, user="", workdir="/", tty=False, env=()):
        channel = transport.open_session(timeout=120)
        if tty:
            channel.get_pty("vt100", 91, 37)
        channel.exec_command(workload_words(argv, {"PATH": PATH, **dict(env)}, workdir, user))
        stdout, stderr = channel.makefile().read().decode(), channel.makefile_stderr().read().decode()
        return channel.recv_exit_status(), stdout, stderr

    return execute


def test_the_guest_proves_itself_with_the_key_made_for_it(machine, transport):
    known = machine.host_key.public.split()[1]
    assert transport.get_remote_server_key().get_base64() == known


def test_another_key_is_refused(machine, transport):
    with socket.create_connection(("127.0.0.1", machine.port), timeout=120) as connection:
        stranger = paramiko.Transport(connection)
        with pytest.raises(paramiko.AuthenticationException):
            stranger.connect(username="root", pkey=paramiko.Ed25519Key.from_private_key_file(machine.path("host_key")))
        stranger.close()


def test_a_commands_streams_and_code(execute):
    assert execute("sh", "-c", "echo out; echo err >&2; exit 9") == (9, "out\n", "err\n")
    assert execute("sh", "-c", "kill -9 $$")[0] != 0


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("", "0 0 0 /root"),
        ("app", "1001 1002 1002 1003 /srv"),
        ("1001", "1001 1002 1002 1003 /srv"),
        ("app:extra", "1001 1003 1003 /srv"),
        ("4000", "4000 0 0 /"),
        ("4000:4001", "4000 4001 4001 /"),
        ("0:1002", "0 1002 1002 /root"),
    ],
)
def test_users_are_those_of_the_image(execute, user, identity):
    assert execute("sh", "-c", "echo $(id -u) $(id -g) $(id -G) $HOME", user=user) == (0, f"{identity}\n", "")


@pytest.mark.parametrize(
    ("argv", "options", "code", "error"),
    [
        (("nothing",), {}, 127, "command not found: nothing"),
        (("/srv/nothing",), {}, 127, "command not found: /srv/nothing"),
        (("/srv/plain",), {}, 126, "not executable: /srv/plain"),
        (("/srv/text",), {}, 126, "not executable: /srv/text"),
        (("/srv",), {}, 126, "not executable: /srv"),
        (("/srv/secret",), {"user": "app"}, 126, "not executable: /srv/secret"),
        (("plain",), {"env": (("PATH", "/nowhere:/srv"),)}, 126, "not executable: plain"),
        (("true",), {"user": "nemo"}, 125, "nemo is not in the image's /etc/passwd"),
        (("true",), {"user": "app:nemo"}, 125, "nemo is not in the image's /etc/group"),
        (("true",), {"workdir": "/nowhere"}, 125, "the folder /nowhere cannot be entered"),
        (("true",), {"workdir": "/root", "user": "app"}, 125, "the folder /root cannot be entered"),
    ],
)
def test_what_cannot_be_started_is_named(execute, argv, options, code, error):
    assert execute(*argv, **options) == (code, "", f"vmctl: {error}\n")


def test_a_command_is_found_as_execvp_finds_it(execute):
    assert execute("script", "1", env=(("PATH", "/nowhere:/srv"),)) == (0, "/srv/script 1\n", "")
    assert execute("./script", "1", workdir="/srv") == (0, "./script 1\n", "")


def test_words_and_environment_arrive_unchanged(execute):
    words = ["", " two  words ", "it's", '"$HOME" `id` \\', "*", "-c", "--", "a=b", "line\nline"]
    script = 'printf "<%s>" "$@"; printf "<%s>" "$path" "$name"'
    result = execute("sh", "-c", script, "sh", *words, env=(("path", "lower case"), ("name", "*")))
    assert result == (0, "".join(f"<{word}>" for word in [*words, "lower case", "*"]), "")


def test_a_terminal_where_one_is_asked_for(execute):
    code, output, _ = execute("sh", "-c", "stty size; tty; echo $TERM; kill -2 $$", tty=True, env=(("TERM", "vt100"),))
    assert output.split() == ["37", "91", "/dev/pts/0", "vt100"]
    assert code != 0
    assert execute("tty")[0] == 1


def test_a_command_has_its_three_streams_and_no_descriptor_of_ours(execute):
    assert execute("sh", "-c", "ls /proc/self/fd | wc -l") == (0, "4\n", "")  # ls reads the folder by a fourth


TAKEN = """
mount -t tmpfs none /run && ip link set lo up && echo 127.0.0.9 >/run/address || exit
"$1" -c 'import socket, time; taken = socket.create_server(("127.0.0.1", 22)); time.sleep(100)' &
until grep -q 0100007F:0016 /proc/self/net/tcp 2>/dev/null; do sleep 0.01; done
exec "$0" sshd 127.0.0.1 3>&1
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the port needs root")
def test_a_workload_that_has_the_port_keeps_it_and_a_clone_listens_on_its_own_address():
    """Else a guest with such a workload would have no snapshot: that waits until the keys are there."""
    inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    command = [*inside, "sh", "-c", TAKEN, agent(), sys.executable]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ssh\n"
        (listener,) = map(int, read(f"/proc/{process.pid}/task/{process.pid}/children").split())
        assert ports(listener) == {"0100007F:0016"}
        os.kill(listener, signal.SIGHUP)
        assert process.stdout.readline() == b"ssh\n"
        assert ports(listener) == {"0100007F:0016", "0900007F:0016"}
        assert process.stderr.readline() == b"port 22 of 127.0.0.1: Address already in use\n"
        os.kill(listener, signal.SIGKILL)


def ports(pid):
    """Return addresses and ports that are listened on in the network of a process (proc(5))."""
    return set(re.findall(r": (\w+:\w+) \w+:\w+ 0A ", read(f"/proc/{pid}/net/tcp")))


def read(path):
    with open(path) as file:
        return file.read()
