"""A guest whose own init is the attacker: what it reports, and how it ends, harms no command of the host."""

import os
import secrets
import time

import pytest
from support import images_made
from support.commands import inspect, ok, vmctl, wait_for

from images.store import store
from vmctl.instances import instance
from vmctl.linux.filetree import size_bytes
from vmctl.logs.logwriter import TIMES
from vmm import files, marks

GUEST = {"mode": "vm", "who": "root"}
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="the image is booted as a system, by root"),
]

# `port NAME` prints the device of a port
PREAMBLE = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
port() { for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name)" != "org.vmctl.$1" ] || echo /dev/${p##*/}; done; }
"""
NONSENSE = (
    PREAMBLE
    + """
{
    printf 'exit abc x\\nexit -1 workload\\nexit 99999999999999999999 workload\\nexit 7\\n exit\\n'
    printf 'exit \\342\\205\\247 workload\\n'
    printf 'exit 0 vmctl\\nexit 256 signal\\nT1 99999999999999999999999999\\nfrozen x\\n\\000\\377\\376\\n'
    printf '\\033]0;taken\\007\\033[2J a phase\\n'
    head -c 300000 /dev/zero | tr '\\0' x
    printf '\\nexit 3 workload\\n'
} >$(port marks)
printf '\\033]0;taken\\007out\\n' >$(port stdout)
while :; do sleep 1; done
"""
)


# reports its success, and runs on for a while
LIAR = (
    PREAMBLE
    + """
printf 'exit 5 workload\nexit 6 workload\n' >$(port marks)
sleep 10
poweroff -f
"""
)


@pytest.fixture
def boot(own_store, tmp_path):
    """A function that boots an image with the given init and returns the instance.

    The image has the files of a system, and none of them is real.
    """
    names = []

    def booted(init):
        for path, text in {"sbin/init": init, "usr/lib/systemd/systemd": "", "usr/bin/cloud-init": ""}.items():
            (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / path).write_text(text)
            (tmp_path / "tree" / path).chmod(0o755)
        images_made.add("hostile", store.find("tiny"), tmp_path / "tree")
        names.append(f"hostile-{secrets.token_hex(3)}")
        spec = tmp_path / "hostile.yaml"
        spec.write_text(f"name: {names[-1]}\nimage: hostile\nvm: {{boot: system}}\n")
        ok("up", "--quiet", "--no-wait", "--mode", "vm", str(spec))
        return instance.load(names[-1])

    yield booted
    for name in names:
        vmctl("rm", "-f", name)


@pytest.mark.attack(
    "a guest reports nonsense: wrong exit codes, huge numbers, control characters, a line without end", **GUEST
)
def test_nonsense(boot):
    inst = boot(NONSENSE)
    wait_for(lambda: size_bytes(files.marks(inst)) >= marks.MOST_BYTES)
    assert size_bytes(files.marks(inst)) == marks.MOST_BYTES
    for words in (("ps", "-a"), ("ps", "-a", "--format", "json"), ("inspect", inst.name), ("df",)):
        assert "\033" not in ok(*words)
    found = inspect(inst.name)
    assert (found["status"], found["exit_code"], found["exit_reporter"]) == ("running", None, None)
    assert all(0 <= at_s < 86400 for at_s in found["marks_s"].values())
    ok("stop", "-t", "1", inst.name)  # its init does not read the request
    found = inspect(inst.name)
    assert (found["status"], found["exit_code"], found["exit_source"]) == ("exited", 137, "signal")
    assert found["exit_reporter"] == "host"
    ok("rm", inst.name)


@pytest.mark.attack("a guest reports its end and runs on: `ps` and `wait` are to believe it", **GUEST)
def test_end_that_is_none(boot):
    inst = boot(LIAR)
    wait_for(lambda: size_bytes(files.marks(inst)))
    assert inspect(inst.name)["status"] == "running"
    assert vmctl("wait", "--timeout", "1", inst.name).code == 124
    wait_for(lambda: inspect(inst.name)["status"] == "exited")
    found = inspect(inst.name)
    assert (found["exit_code"], found["exit_source"], found["exit_reporter"]) == (5, "workload", "guest")


@pytest.mark.attack("a guest reports very many lines at once, so that each look at it takes long", mode="vm", who="any")
def test_many_lines(monkeypatch, tmp_path):
    path = tmp_path / "marks"
    path.write_bytes(b"\n" * marks.MOST_BYTES)
    monkeypatch.setattr(marks.files, "marks", lambda inst: str(path))

    def took_s(noted):
        times.write_text(noted)
        begin_s = time.process_time()
        assert len(marks.read(None)) == marks.MOST_BYTES
        return time.process_time() - begin_s

    times = tmp_path / f"marks{TIMES}"
    few, many = "1 1\n", "".join(f"{60 * number} {number}\n" for number in range(1, 1001))
    pairs = [(took_s(few), took_s(many)) for _ in range(8)]  # in turns, so that other load is in both
    assert min(last for _, last in pairs) < 5 * min(first for first, _ in pairs)
