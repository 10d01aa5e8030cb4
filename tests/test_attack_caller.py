"""Who calls vmctl as root does so in a folder of somebody else, with files in it that have names vmctl uses."""

import json
import os
import secrets
import stat
import subprocess
from contextlib import suppress

import pytest
from support.attack_table import callers, modes
from support.commands import VMCTL

pytestmark = pytest.mark.timeout(600)

MODULES = ("json", "argparse", "vmctl", "msgspec", "struct", "yaml", "encodings", "sitecustomize", "usercustomize")
PROGRAMS = (
    "env",
    "setpriv",
    "mount",
    "mkfs.erofs",
    "ip",
    "skopeo",
    "qemu-img",
    "qemu-system-x86_64",
    "mke2fs",
    "modprobe",
)


@pytest.fixture
def trap(tmp_path):
    """A folder of modules and programs, each of which leaves a file if it is executed."""
    folder = tmp_path / "trap"
    folder.mkdir()
    fallen = tmp_path / "fallen"
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(fallen)!r}, 'a').write({name!r})\n")
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {name} >> {fallen}\n")
        program.chmod(0o755)
    yield folder
    assert not fallen.exists(), fallen.read_text()


@pytest.mark.attack("puts Python modules and programs with known names into the folder from which root calls vmctl")
@modes("container", "vm", "host")
@callers("root")
def test_folder_of_the_call(guest_root, trap, mode, caller):
    (trap / "w.yaml").write_text("image: tiny\ncommand: [sleep, '1000']\nready: {exec: ['true'], timeout: 240s}\n")
    environment = {**os.environ, "PATH": f":.:{os.environ['PATH']}::"}
    caller.ok("up", "--quiet", "--mode", mode, "w.yaml", cwd=trap, env=environment)
    for words in (("exec", "w", "--", "true"), ("inspect", "w"), ("down", "w")):
        caller.vmctl(*words, cwd=trap, env=environment)


@pytest.mark.attack(
    "gives a workload file that is a FIFO, a device, a link into /proc or a file without end", who="root"
)
@callers("root")
@pytest.mark.parametrize("kind", ["fifo", "device", "link", "folder", "endless"])
def test_workload_file_of_another_kind(caller, tmp_path, kind):
    path = tmp_path / "w.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif kind == "link":
        path.symlink_to("/proc/self/fd/0")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    path.with_name("Dockerfile").symlink_to(path)
    verbs = (("spec", "check"), ("up",), ("bench",), ("image", "build"), ("bench", "verify"), ("bench", "report"))
    for words in ((*verb, str(path)) for verb in verbs):
        caller.refused(*words, timeout_s=60)


@pytest.mark.attack("reads the variables and open files of its caller in a process that outlives the command")
@modes("container", "vm", "host")
def test_what_outlives_the_command_has_nothing_of_the_caller(guest_root, caller, mode, tmp_path):
    """Each such process is in reach of somebody: of the instance, of its network, or of a user with the same id."""
    token, network = f"vmctl-test-{secrets.token_hex(8)}", f"net-{secrets.token_hex(4)}"
    file = tmp_path / token
    file.write_text(token)
    path = caller.write("outlives.yaml", OUTLIVES + f"network: {network}\n" * (mode != "host"))
    caller.ok("network", "create", network)
    try:
        for name, where in (("outlives", mode), ("neighbour", "container")):
            _with_open_file(caller, str(file), token, "up", "--mode", where, "--name", name, path)
        kept = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != os.getpid()]
        assert [words for words in map(_command_with(token), kept) if words] == []
        assert len(json.loads(caller.ok("ps", "--format", "json"))) == 2
    finally:
        caller.vmctl("rm", "-f", "outlives", "neighbour")
        caller.vmctl("network", "rm", network)


OUTLIVES = """
image: tiny
command: [sleep, '100000']
restart: always
health: {exec: ['true']}
ready: {exec: ['true'], timeout: 240s}
ports: ['8000', '8000/udp']
"""


def _with_open_file(caller, file, token, *words):
    """Run vmctl with a variable, and a file that each program it starts would inherit."""
    fd = os.open(file, os.O_RDONLY)
    command, options = caller.user.command(VMCTL, *words) if caller.uid else ((VMCTL, *words), {"env": {**os.environ}})
    options["pass_fds"] = (*options.get("pass_fds", ()), fd)
    options["env"]["CALLERS_SECRET"] = token
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    finally:
        os.close(fd)
    assert done.returncode == 0, done.stderr


def _command_with(token):
    """Return a function that returns the command of a process that has the variable or the file, else nothing."""

    def command(pid):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            with open(f"/proc/{pid}/environ", "rb") as file:
                has_variable = token.encode() in file.read()
            files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            if has_variable or any(token in path for path in files):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    return file.read().replace(b"\0", b" ").decode()
        return ""

    return command
