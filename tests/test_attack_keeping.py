"""Hostile health checks, and the places where a secret could be found: tried in each mode, as root and as a user."""

import json
import os
import secrets
import stat
import time

import pytest
from support.attack_table import modes
from support.attacks import image
from support.commands import ok, refused, vmctl, wait_for

from vmctl import paths
from vmctl.keeping.keeper import OUTPUT_BYTES
from vmctl.linux import mountinfo, processes

pytestmark = pytest.mark.timeout(1200)
LIMIT_S = 2
# what the check does is in a file of the instance, which the attacker has root in
HOSTILE = {
    "writes without end": "while :; do echo 0123456789abcdef0123456789abcdef; done",
    "never ends, and ignores signals": "trap '' TERM INT HUP; while :; do sleep 1000; done",
    "leaves processes that keep its output open": "(sleep 500000; echo) & (setsid sleep 500000; echo) & echo left",
    "writes escape sequences": r"printf '\033]0;owned\007\033[2J\233\000\377'; exit 1",
    "ends with the code of vmctl's own": "exit 250",
}


class Victim:
    """An instance with a hostile check and with secrets: it is started once for all tests of a mode."""

    def __init__(self, caller, mode):
        self.caller, self.mode = caller, mode
        self.name = f"victim-{mode}-{caller.name}"
        self.file_secret, self.variable, self.env_secret = (
            f"{kind}-{secrets.token_hex(16)}" for kind in ("filed", "exported", "listed")
        )
        file = caller.write(f"{self.name}.secret", self.file_secret)
        listed = caller.write(f"{self.name}.env", f"LISTED={self.env_secret}\n")
        self.sources = {file, listed}
        text = f"""
image: tiny
command: [sh, -c, 'echo "$LISTED" | md5sum; md5sum /run/secrets/*; exec sleep 100000']
init: {json.dumps(mode == "container")}
secrets: [{{name: file, file: {file}}}, {{name: variable, env: EXPORTED}}]
env_file: {listed}
restart: always
health: {{exec: [sh, /check.sh], interval: 300ms, timeout: {LIMIT_S}s, retries: 2}}
files: [{{path: /check.sh, content: "exit 0\\n"}}]
"""
        self.trace = os.path.join(caller.folder, f"{self.name}.trace")
        path = caller.write(f"{self.name}.yaml", text)
        caller.ok(
            *("--trace", self.trace, "up", "-q", "--mode", mode, path),
            env={**(os.environ if caller.uid == 0 else {}), "EXPORTED": self.variable},
        )

    def last(self):
        """Return what is recorded of the last check."""
        return self.caller.inspect(self.name)["health_check"]["last"]

    def check_by(self, script):
        """Let the check be this script; return what is recorded of the second check after that."""
        put = self.caller.vmctl(
            "exec", self.name, "--", "sh", "-c", "cat >/new; mv /new /check.sh", stdin=f"{script}\n"
        )
        assert put.code == 0, put
        for _ in range(2):
            before = self.last()["checked"]
            wait_for(lambda: self.last()["checked"] != before)  # noqa: B023
        return self.last()


@pytest.fixture(scope="module")
def victim(caller, mode):
    victim = Victim(caller, mode)
    yield victim
    caller.vmctl("rm", "-f", victim.name)


def supervisor(victim):
    """Return the process that runs the checks, from the journal."""
    found = victim.caller.inspect(victim.name)["journal"]
    (entry,) = (one for one in found if one.get("role") in ("supervisor", "recorder"))
    return entry["pid"]


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


@pytest.mark.attack(
    "takes memory, processes or processor time of the host by a health check that writes without end, never ends, "
    "leaves processes behind, or writes escape sequences"
)
def test_hostile_checks(victim):
    wait_for(lambda: victim.last()["code"] == 0 and victim.last()["checked"])
    pid = supervisor(victim)
    before = processes.pss_bytes(pid)
    for what, script in HOSTILE.items():
        used = _cpu_s(pid)
        began_s = time.monotonic()
        last = victim.check_by(script)
        assert len(last["output"].encode()) <= 4 * OUTPUT_BYTES, what  # what is no UTF-8 takes three bytes
        if "end" in what and "ends with" not in what:
            assert last["code"] != 0, what
            assert f"did not end within {LIMIT_S} s" in last["output"], what
        took_s = time.monotonic() - began_s
        assert _cpu_s(pid) - used < 0.5 + 0.2 * took_s, what  # most of it is paid by the instance
        assert len(children(pid)) <= 2, what  # its workload and one check
    assert processes.pss_bytes(pid) < before + (1 << 20)
    shown = victim.caller.vmctl("inspect", victim.name).out + victim.caller.vmctl("ps").out
    assert not set("\x1b\x07\x9b\0") & set(shown)
    last = victim.check_by("exit 0")
    assert victim.last()["status"] == "healthy", last


def _cpu_s(pid):
    found = processes.fields(pid)
    return sum(map(int, found[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.attack(
    "reads a secret of an instance in its records, seed, disk, logs, the trace, a command line, an environment, "
    "`inspect`, `diff`, an export or a commit"
)
def test_secrets(victim):
    caller, name = victim.caller, victim.name
    texts = [secret.encode() for secret in (victim.file_secret, victim.variable, victim.env_secret)]
    # it really has them
    sums = caller.ok("exec", name, "--", "sh", "-c", "cat /run/secrets/file /run/secrets/variable; echo $LISTED")
    assert sums == f"{victim.file_secret}{victim.variable}{victim.env_secret}\n"
    of_disk = victim.mode != "vm" or caller.uid == 0  # else its disk can only be read by the host's root
    shown = [("inspect", name), ("logs", name), ("ps", "-a"), *([("diff", name)] if of_disk else [])]
    outputs = [caller.vmctl(*words) for words in shown]
    outputs.append(caller.vmctl("--debug", "--trace", "-", "exec", name, "--", "true"))
    assert [result for result in outputs if result.code] == []
    shown = "".join(result.out + result.err for result in outputs).encode()
    archive = os.path.join(caller.folder, f"{name}.tar")
    if of_disk:
        caller.ok("commit", name, f"{name}-image")
        caller.images.add(f"{name}-image")
    caller.ok("image", "export", f"{name}-image" if of_disk else "tiny", "-o", archive)
    for text in texts:
        assert text not in shown
    files = list(_files(victim, archive))
    assert len(files) > 10
    assert [path for path in files if _has(path, texts)] == []
    with open(archive, "ab") as file:  # the search would see it
        file.write(b"-" * 5000 + texts[0])
    assert _has(archive, texts)
    assert _processes_with(texts, victim) == []


def _files(victim, archive):
    """Yield each file that vmctl has made for this caller."""
    yield from (archive, victim.trace)
    for root in (victim.caller.state, paths.run_root()):
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                if stat.S_ISREG(os.lstat(path).st_mode):
                    yield path


def _has(path, texts):
    """Return whether a file, which may be sparse, has one of the texts."""
    with open(path, "rb") as file:
        place = 0
        while True:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:  # ENXIO: no more data
                return False
            data = os.pread(file.fileno(), 1 << 20, place)
            if not data or any(text in data for text in texts):
                return bool(data)
            place += max(len(data) - 100, 1) if len(data) == 1 << 20 else len(data)  # one may be across the border


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def _processes_with(texts, victim):
    """Return the processes of the host with a secret in their command line or in their variables.

    Those of the container itself have its variables.
    """
    inside = os.readlink(f"/proc/{victim.caller.inspect(victim.name)['pid']}/ns/pid")
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        for file in ("cmdline", "environ"):
            try:
                content = _content(f"/proc/{name}/{file}")
            except OSError:
                continue
            if any(text in content for text in texts) and os.readlink(f"/proc/{name}/ns/pid") != inside:
                found.append((name, file, content))
    return found


@modes("container")
@pytest.mark.attack("reads or replaces a secret as another user of the same instance, or by a link in the image")
def test_secrets_inside(caller, mode, canary):
    folder = caller.write("link.secret", "mine")
    entries = [("run", {"type": b"2", "linkname": f"{caller.folder}"}, b"")]
    image(caller, "links", *entries, without=("run",))
    seen = caller.vmctl(
        *("run", "--mode", mode, "--network", "none", "-u", "5:5", "--secret", f"id=one,src={folder}", "links", "--"),
        *("sh", "-c", "cat /run/secrets/one; echo x >/run/secrets/one; mv /run/secrets/one /tmp/x; id -u"),
    )
    assert not os.path.exists(os.path.join(caller.folder, "secrets"))
    assert "Traceback" not in seen.err
    if seen.code == 0:
        assert seen.out == "mine5\n"
    canary.check(seen)


@pytest.mark.attack(
    "adds lines to a unit of systemd by a line break in the name of a folder", mode="container", who="root"
)
def test_line_breaks(own_root, tmp_path, monkeypatch):
    root, units = tmp_path / "x\nExecStartPre=touch owned\n", tmp_path / "units"
    (root / "lib").mkdir(parents=True)
    os.symlink(own_root / "lib/images", root / "lib/images")
    monkeypatch.setenv("VMCTL_ROOT", str(root))
    monkeypatch.setenv("VMCTL_UNITS", str(units))
    ok("run", "-d", "--network", "none", "--name", "web", "tiny", "--", "sleep", "1000")
    try:
        assert "control character" in refused("enable", "web")
        assert not units.exists()
    finally:
        vmctl("rm", "-f", "web")
        mountinfo.unmount_all(str(root))
