"""From inside, against the caller: its terminal, its streams and its descriptors."""

import json
import os
import secrets
import stat
import subprocess
from contextlib import contextmanager

import pytest
from support.commands import VMCTL, Terminal, inspect, ok, vmctl

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("guest_root")]

# tries to put a command into the input of each terminal that it can reach
TYPIST = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
int main(void) {
    int fds[] = {0, 1, 2, open("/dev/tty", O_RDWR)};
    for (int i = 0; i < 4; i++) {
        char paste = 3;
        for (const char *c = "typed by the workload\n"; *c; c++) ioctl(fds[i], TIOCSTI, c);
        ioctl(fds[i], TIOCLINUX, &paste);
        dprintf(2, "descriptor %d is%s a terminal\n", fds[i], isatty(fds[i]) ? "" : " not");
    }
    dprintf(2, "session %s\n", getsid(0) == getpid() ? "of its own" : "of the caller");
}
"""


@pytest.fixture(scope="module")
def typist(tmp_path_factory):
    """The path of a static program that types."""
    folder = tmp_path_factory.mktemp("typist")
    (folder / "typist.c").write_text(TYPIST)
    subprocess.run(["cc", "-static", "-o", folder / "typist", folder / "typist.c"], check=True)
    return folder / "typist"


@contextmanager
def running(tmp_path, mode, **keys):
    """Start an instance that waits; return its name."""
    document = {"image": "tiny", "command": ["sleep", "100000"], **keys}
    path = tmp_path / f"victim-{secrets.token_hex(3)}.yaml"
    path.write_text(json.dumps(document))
    ok("up", "--quiet", "--mode", mode, str(path))
    try:
        yield path.stem
    finally:
        vmctl("rm", "-f", path.stem)


def typed_after(command, *words):
    """Run a shell's command on a terminal; return what the shell reads afterwards, and all output."""
    script = f'{command}; read -r -t 1 line; echo "READ<$line>"'
    _, output = Terminal("-c", script, VMCTL, *words, program="/bin/bash").end()
    assert "session of its own" in output
    return output.rpartition("READ<")[2].partition(">")[0], output


@pytest.mark.attack("types a command into the shell that started it with `run`", mode="container, host", who="root")
@pytest.mark.parametrize("kind", ["container", "host"])
@pytest.mark.parametrize("streams", ["", "</dev/null", ">/dev/tty", "</dev/null 2>/dev/tty"])
def test_typing_by_run(kind, streams, typist):
    network = {"container": "none", "host": "host"}[kind]
    command = f'"$0" run --mode {kind} --network {network} -v {typist}:/typist:ro tiny -- /typist {streams}'
    typed, output = typed_after(command)
    assert typed == ""
    assert " is a terminal" not in output


@pytest.mark.attack(
    "types a command into the shell that started it with `exec`, unconfined and with SYS_ADMIN",
    mode="container, host",
    who="root",
)
@pytest.mark.parametrize("kind", ["container", "host"])
def test_typing_by_exec(kind, typist, tmp_path):
    free = {}
    if kind == "container":
        capabilities = ["SYS_ADMIN", "SYS_TTY_CONFIG"]
        free = {"container": {"userns": "host", "seccomp": "unconfined", "cap_add": capabilities}, "network": "none"}
    with running(tmp_path, kind, volumes=[f"{typist}:/typist:ro"], **free) as name:
        for streams in ("", "</dev/null", ">/dev/tty", "2>/dev/tty"):
            typed, output = typed_after(f'"$0" exec -T {name} -- /typist {streams}')
            assert typed == ""
            assert " is a terminal" not in output
        # its own terminal: what it types there stays there
        typed, output = typed_after(f'"$0" exec -t {name} -- /typist')
        assert typed == ""


@pytest.mark.attack("types a command into the shell that started an image build", mode="container", who="root")
def test_typing_by_a_build(typist, tmp_path, own_store):
    (tmp_path / "Dockerfile").write_text("FROM tiny\nCOPY typist /\nRUN /typist\n")
    (tmp_path / "typist").write_bytes(typist.read_bytes())
    (tmp_path / "typist").chmod(0o755)
    typed, output = typed_after(f'"$0" image build --no-cache -t typed {tmp_path}')
    assert typed == ""
    assert " is a terminal" not in output


def shell(script, *, command=("run", "--userns", "host", "--network", "none", "tiny"), **streams):
    """Run a script inside with these streams of the caller."""
    words = [VMCTL, *command, "--", "sh", "-c", script]
    return subprocess.run(words, **{**dict.fromkeys(("stdout", "stderr"), subprocess.PIPE), **streams}, text=True)


@pytest.fixture(params=["run", "exec"])
def inside(request, tmp_path):
    """A function that runs a script inside, by either verb."""
    if request.param == "run":
        yield shell
        return
    with running(tmp_path, "container", network="none", container={"userns": "host"}) as name:
        yield lambda script, **streams: shell(script, command=("exec", "-T", name), **streams)


@pytest.mark.attack(
    "reads the host's files through a folder that the caller has as a stream", mode="container", who="root"
)
def test_folder_as_a_stream(canary, inside):
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    seen = inside(f"for fd in 0 1 2; do cat /proc/self/fd/$fd{canary.path}; done; cat {canary.path}", stderr=folder)
    os.close(folder)
    canary.check(seen.stdout)


@pytest.mark.attack(
    "changes a file that the caller gives it for reading, by its descriptor", mode="container", who="root"
)
def test_input_file_is_only_read(canary, inside):
    before = os.stat(canary.path)
    with open(canary.path) as file:
        seen = inside(
            "cat; for n in 0 1 2; do echo changed >>/proc/self/fd/$n; chmod 666 /proc/self/fd/$n; done", stdin=file
        )
    assert seen.stdout.startswith(canary.secret)
    after = os.stat(canary.path)
    assert (after.st_mode, after.st_size) == (before.st_mode, before.st_size)


@pytest.mark.attack(
    "reads the file to which the caller appends its output, and changes its mode", mode="container", who="root"
)
def test_output_file_is_only_written(canary, tmp_path, inside):
    log = tmp_path / "log"
    log.write_text(f"{canary.secret}\n")
    log.chmod(0o600)
    with open(log, "a") as file:
        inside("timeout 1 cat /proc/self/fd/1 >/tmp/seen; chmod 666 /proc/self/fd/1; wc -c </tmp/seen", stdout=file)
    assert log.read_text() == f"{canary.secret}\n0\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.attack("makes the host's /dev/null unusable by changing its mode", mode="container", who="root")
def test_null_device_of_the_host(inside, tmp_path):
    before = stat.S_IMODE(os.stat("/dev/null").st_mode)
    try:
        inside("chmod 640 /proc/self/fd/0", stdin=subprocess.DEVNULL)
        assert stat.S_IMODE(os.stat("/dev/null").st_mode) == before
        command = ["sh", "-c", "chmod 640 /dev/null; chmod 640 /proc/self/fd/0; echo written >/dev/null && echo usable"]
        with running(tmp_path, "container", network="none", command=command, container={"userns": "host"}) as name:
            ok("wait", name)
            assert ok("logs", name).endswith("usable\n")
        assert stat.S_IMODE(os.stat("/dev/null").st_mode) == before
    finally:
        os.chmod("/dev/null", before)


@pytest.mark.attack("reads a file that the caller has open by chance", mode="container, vm, host", who="root")
@pytest.mark.parametrize("kind", ["container", "vm", "host"])
def test_descriptors_of_the_caller(kind, canary, tmp_path):
    """Neither the workload nor the processes that stay on the host for it have a descriptor of the caller."""
    secret = os.open(canary.path, os.O_RDONLY)
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        options = {"pass_fds": (secret, folder)}
        script = f"ls -l /proc/self/fd; cat /proc/self/fd/{secret} /proc/self/fd/{folder}{canary.path}"
        network = {"host": "host"}.get(kind, "none")
        seen = vmctl("run", "--mode", kind, "--network", network, "tiny", "--", "sh", "-c", script, **options)
        assert seen.code != 0
        canary.check(seen)
        path = tmp_path / "stays.yaml"
        path.write_text("image: tiny\ncommand: [sleep, '100000']\n")
        ok("up", "--mode", kind, str(path), **options)
        found = inspect("stays")
        helpers = [entry["pid"] for entry in found["journal"] if entry["kind"] == "process"]
        for pid in {found["pid"], *helpers}:
            files = [os.stat(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            for own in (secret, folder):
                assert not any(os.path.samestat(file, os.stat(own)) for file in files), pid
    finally:
        vmctl("rm", "-f", "stays")
        os.close(secret)
        os.close(folder)
