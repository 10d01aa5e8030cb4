"""The script of `vmctl up --explain`: its lines start the workload in each mode, and take away what they have made."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from support.commands import free_port, ok, vmctl

from vmctl.linux import cgroups, mountinfo
from vmctl.programs import run

MODES = ("container", "host", "vm")
ALONE = {"resources": {"memory": "128M", "cpus": 1.5}, "env": {"NAME": "of the workload's"}}


def script(tmp_path, mode, **keys):
    """Return the path of the script for a workload, which is called by-hand-MODE."""
    work = {"name": f"by-hand-{mode}", "image": "tiny", **keys}
    (tmp_path / "w.yaml").write_text(json.dumps(work))
    path = str(tmp_path / "start")
    assert ok("up", "--mode", mode, "--script", path, str(tmp_path / "w.yaml")) == ""
    return path


def left(name, folder):
    """Return what a start by hand may have left on the host."""
    groups = [path for path in set(cgroups.Cgroup(f"{name}.hand").folders.values()) if os.path.exists(path)]
    spaces = [line for line in run(["ip", "netns"])[1].splitlines() if line.split(" ")[0] == f"{name}-hand"]
    return groups, spaces, mountinfo.below(folder), os.path.exists(folder)


BOOT_ID = "/proc/sys/kernel/random/boot_id"
SAYS = f"at=$(hostname -i); echo said $$ $(id -u) $(cat {BOOT_ID}) ${{at:-none}} $(hostname) $NAME $(cat /etc/it)"


class Started:
    """A script that is executed, and what the workload has written."""

    def __init__(self, path):
        self.process = subprocess.Popen(["sh", "-x", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = next(line for line in iter(self.process.stdout.readline, "") if line.startswith("said ")).split()[
            1:
        ]

    def ended(self):
        """Return the exit code and the folder $W."""
        errors = self.process.communicate(timeout=120)[1]
        return self.process.returncode, re.search(r"W=(/run/by-hand\.\w+)", errors)[1]


def started(tmp_path, mode, then):
    file = {"path": "/etc/it", "content": "it's `$it`\n"}
    return Started(script(tmp_path, mode, command=["sh", "-c", f"{SAYS}; {then}"], files=[file], **ALONE))


def test_volumes_and_folders_in_memory(guest_root, tmp_path):
    (tmp_path / "given").write_text("of the host")
    script_of = "cat /given/given /one; touch /given/made; echo no >/one; stat -f -c %T /memory"
    volumes = [f"{tmp_path}:/given", f"{tmp_path}/given:/one:ro"]
    keys = {"volumes": volumes, "tmpfs": ["/memory:size=1m"], "network": "none"}
    path = script(tmp_path, "container", command=["sh", "-c", script_of], **keys)
    code, out, err = run(["sh", path])
    assert (code, out) == (0, "of the hostof the hosttmpfs\n"), err
    assert "Read-only file system" in err
    assert os.stat(tmp_path / "made").st_uid == 0


def check_said(said, mode):
    pid, uid, boot_id, _, hostname, *rest = said
    assert (uid, rest) == ("0", ["of", "the", "workload's", "it's", "`$it`"])
    assert (pid == "1") is (mode == "container")
    assert (hostname == f"by-hand-{mode}") is (mode != "host")
    with open(BOOT_ID) as file:
        assert (boot_id == file.read().strip()) is (mode != "vm")


@pytest.mark.parametrize("mode", MODES)
def test_the_lines_start_it_and_take_it_away(guest_root, tmp_path, mode):
    port = free_port()
    it = started(tmp_path, mode, f"echo found >/index.html; exec httpd -f -p {port} -h /")
    try:
        check_said(it.said, mode)
        assert fetched(mode, "127.0.0.1" if mode == "host" else it.said[3], port) == "b'found\\n'\n"
    finally:
        it.process.terminate()
        code, folder = it.ended()
    assert code == 143
    assert left(f"by-hand-{mode}", folder) == ([], [], [], False)


def fetched(mode, address, port):
    """Return what a workload answers, from the network of its switch."""
    url = f"http://{address}:{port}"
    fetch = f"import urllib.request as r; print(r.build_opener(r.ProxyHandler({{}})).open('{url}').read())"
    inside = ["ip", "netns", "exec", f"by-hand-{mode}-hand"] if mode != "host" else []
    until = time.monotonic() + 120
    while (found := run([*inside, sys.executable, "-c", fetch], check=False))[0] and time.monotonic() < until:
        time.sleep(0.1)
    return found[1]


@pytest.mark.parametrize("mode", ["container", "host"])
def test_its_end_is_that_of_the_workload(guest_root, tmp_path, mode):
    it = started(tmp_path, mode, "exit 7")
    check_said(it.said, mode)
    code, folder = it.ended()
    assert code == 7
    assert left(f"by-hand-{mode}", folder) == ([], [], [], False)


@pytest.mark.parametrize("mode", MODES)
def test_the_script_is_clean(guest_root, tmp_path, mode):
    hostile = {"env": {"A": "$(touch /x) `b` '\"\n"}, "files": [{"path": "/a b/'c", "content": "END\nEND_OF_INSIDE\n"}]}
    path = script(tmp_path, mode, command=["echo", "'; reboot; '", "$W"], **hostile)
    assert run(["shellcheck", path]) == (0, "", "")
    assert os.stat(path).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", ["container", "vm"])
def test_a_key_that_a_script_leaves_out_is_refused(guest_root, tmp_path, mode):
    (tmp_path / "s").write_text("x")
    (tmp_path / "w.yaml").write_text(
        f"name: w\nimage: tiny\ncommand: ['true']\nsecrets: [{{name: s, file: {tmp_path}/s}}]\n"
    )
    result = vmctl("up", "--mode", mode, "--script", str(tmp_path / "start"), str(tmp_path / "w.yaml"))
    assert result.code != 0
    assert "--script: secrets: a start by hand leaves it out" in result.err
    assert not os.path.exists(tmp_path / "start")
