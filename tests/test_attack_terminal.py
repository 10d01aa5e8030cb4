"""From inside, against the terminal of who looks: escape sequences, and terminals that are none."""

import json
import os
import time

import pytest
from support.as_nobody import as_nobody
from support.commands import Terminal, ok, refused, vmctl, wait_for

from vmctl.attach import frames, front
from vmctl.instances import instance

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("own_store")]

TITLE, CLEAR, BELL, BIDI, C1 = "\\033]0;owned\\007", "\\033[2J", "\\007", "\\342\\200\\256", "\\302\\2332J"
BAD = ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\x9b", "\x1bc", "\x1b[8m")
SCRIPT = f"printf 'a{TITLE}b{CLEAR}c{BELL}d{BIDI}e{C1}f\\033cg\\033[8mh \\033[31mred\\n'; printf 'last\\033['"


@pytest.mark.attack(
    "sends escape sequences by its output to the terminal of who reads its logs", mode="container, vm", who="root"
)
@pytest.mark.parametrize("kind", ["container", "vm"])
def test_logs(kind, tmp_path):
    path = tmp_path / f"noisy-{kind}.yaml"
    path.write_text(json.dumps({"image": "tiny", "command": ["sh", "-c", f"{SCRIPT}; {SCRIPT} >&2"]}))
    ok("up", "-q", "--mode", kind, str(path))
    try:
        ok("wait", path.stem)
        _, seen = Terminal("logs", path.stem).end()
        assert "ab" in seen
        assert not [bad for bad in BAD if bad in seen]
        assert "\x1b[31mred" in seen
        assert "\x1b[0m" in seen
        assert "\x1b]0;owned\x07" in ok("logs", path.stem)  # into a pipe: as it was written
    finally:
        vmctl("rm", "-f", path.stem)


@pytest.mark.attack("sends escape sequences by a RUN step to the terminal of who builds", mode="container", who="root")
def test_build(tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM tiny\nRUN {SCRIPT}; echo; echo end\nRUN : \x1b]0;owned\x07\n")
    _, seen = Terminal("image", "build", "--no-cache", "-t", "noisy", str(tmp_path)).end()
    assert "\x1b[31mred" in seen
    assert not [bad for bad in BAD if bad in seen]


@pytest.mark.attack(
    "sends escape sequences by the errors of its programs and names of its files", mode="container, host", who="root"
)
@pytest.mark.parametrize("kind", ["container", "host"])
def test_messages(kind, tmp_path):
    command = "/\x1b]0;owned\x07\x1b[2J\u202e"
    network = "none" if kind == "container" else "host"
    _, seen = Terminal("run", "--mode", kind, "--network", network, "tiny", "--", command).end()
    assert "\\x1b]0;owned\\x07" in seen
    assert not [bad for bad in BAD if bad in seen]


# puts links where the host would look for a terminal, and a program that works after a change of the root
PRISON = """
    mkdir -p /prison/dev/pts /prison/bin /prison/proc; cp /bin/busybox /prison/bin/
    ln -s /dev/ptmx /prison/dev/pts/ptmx
    for n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29; do
        ln -s {path} /prison/dev/pts/$n
    done
    echo ready; exec chroot /prison /bin/busybox sleep 1000
"""


@pytest.mark.attack(
    "changes its root so that the terminal of `exec -t` is a file of the host, which then gets another owner",
    mode="container",
    who="root",
)
@pytest.mark.parametrize("userns", ["auto", "host"])
def test_terminal_by_path(userns, canary, tmp_path):
    path = tmp_path / "prison.yaml"
    document = {"image": "tiny", "network": "none", "ready": {"log": "ready"}, "container": {"userns": userns}}
    path.write_text(json.dumps({**document, "command": ["sh", "-c", PRISON.format(path=canary.path)]}))
    ok("up", "-q", str(path))
    try:
        wait_for(lambda: "sleep" in ok("exec", "prison", "--", "ps"))
        code, seen = Terminal("exec", "-t", "prison", "--", "tty").end()
        assert (code, seen.strip().startswith("/dev/pts/")) == (0, True)
        assert os.stat(canary.path).st_uid == 0
    finally:
        vmctl("rm", "-f", "prison")


@pytest.mark.attack("puts a FIFO, a device or a folder where `exec -t` opens a terminal", mode="container", who="root")
@pytest.mark.parametrize(
    "command", ["mkfifo /d/ptmx", "ln -s /dev/zero /d/ptmx", "mkdir /d/ptmx", "ln -s /proc/self/fd/0 /d/ptmx"]
)
def test_terminal_that_is_none(command, tmp_path):
    path = tmp_path / "fake.yaml"
    container = {"userns": "host", "cap_add": ["SYS_ADMIN"], "seccomp": "unconfined"}
    script = f"mkdir /d; {command}; mount --bind /d /dev/pts; echo ready; exec sleep 1000"
    document = {"image": "tiny", "network": "none", "ready": {"log": "ready"}, "container": container}
    path.write_text(json.dumps({**document, "command": ["sh", "-c", script]}))
    ok("up", "-q", str(path))
    try:
        assert "could not run the command" in refused("exec", "-t", "fake", "--", "true", timeout_s=60)
        assert ok("exec", "-T", "fake", "--", "echo", "still") == "still\n"
    finally:
        vmctl("rm", "-f", "fake")


def _memory_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.attack(
    "writes to its terminal without end while a caller of `attach` does not read, so that the host's memory fills",
    mode="container, vm",
    who="root",
)
@pytest.mark.parametrize("kind", ["container", "vm"])
def test_output_that_a_caller_does_not_take(kind, tmp_path):
    path = tmp_path / f"flood-{kind}.yaml"
    path.write_text(json.dumps({"image": "tiny", "command": ["sh", "-c", "read x; yes"], "tty": True}))
    ok("up", "-q", "--mode", kind, str(path))
    try:
        inst = instance.load(path.stem)
        with front.connect(inst.run_dir), front.connect(inst.run_dir) as typist:
            typist.sendall(frames.frame(0, frames.INPUT, b"\n"))
            wait_for(lambda: os.path.getsize(inst.stdout_log) > 100_000)
            for _ in range(30):
                time.sleep(0.1)
                assert _memory_bytes(inst.state.supervisor_pid) < 40 << 20
    finally:
        vmctl("rm", "-f", path.stem)


@pytest.mark.attack("as another user of the host, types into the terminal of an instance", mode="container", who="root")
def test_terminal_of_another_user(own_store, tmp_path):
    path = tmp_path / "theirs.yaml"
    path.write_text(json.dumps({"image": "tiny", "network": "none", "command": ["sh"], "tty": True}))
    os.chmod(own_store, 0o755)
    ok("up", "-q", str(path))
    try:
        folder = instance.load("theirs").run_dir
        assert as_nobody(lambda: front.connect(folder).fileno()).startswith("PermissionError")
    finally:
        vmctl("rm", "-f", "theirs")
