"""Verbs of daily use: the same words and results in every mode, as root and as an ordinary user."""

import io
import json
import os
import subprocess
import tarfile
import time
from contextlib import suppress

import pytest
from support.commands import VMCTL, free_port, wait_for

from vmctl import backends
from vmctl.copying.place import Target, receive
from vmctl.copying.tar import TarError

pytestmark = pytest.mark.timeout(900)
MODES = sorted(backends.modes())
TALKS = """
image: tiny
command: [sh, -c, 'echo ready; while :; do echo tick; usleep 50000; done']
ports: ["{outer}:{inner}"]
{limits}
ready: {{log: ready, timeout: 300s}}
labels: {{kind: talks}}
"""


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    """Every mode."""
    return request.param


class Talker:
    """A running instance that writes a line again and again."""

    def __init__(self, caller, mode):
        self.caller, self.mode, self.port = caller, mode, free_port()
        self.guest = backends.load(mode).features.own_kernel
        self.groups = not caller.uid  # an ordinary user has no control groups here
        self.name = f"talks-{mode}-{caller.name}"
        limits = "resources: {memory: 128M, cpus: 1}" if self.groups else "resources: {memory: 128M}" * self.guest
        text = TALKS.format(outer=self.port, inner=free_port(), limits=limits)
        caller.ok("up", "-q", "--mode", mode, "--name", self.name, caller.write(f"{self.name}.yaml", text))

    def shell(self, script, **options):
        return self.caller.ok("exec", self.name, "--", "sh", "-c", script, **options)

    def inspect(self):
        return self.caller.inspect(self.name)

    def lines(self):
        return self.caller.ok("logs", self.name).count("\n")


@pytest.fixture(scope="module")
def talker(caller, mode):
    talker = Talker(caller, mode)
    yield talker
    caller.vmctl("rm", "-f", talker.name)


def test_port(talker):
    caller, [port] = talker.caller, talker.inspect()["workload"]["ports"]
    assert caller.ok("port", talker.name) == f"{port['port']}/tcp -> 127.0.0.1:{talker.port}\n"
    assert caller.ok("port", talker.name, f"{port['port']}/tcp") == f"127.0.0.1:{talker.port}\n"
    assert "does not publish its port 9" in caller.refused("port", talker.name, "9")
    assert "expected a port" in caller.refused("port", talker.name, "http")


def test_templates_and_filters(talker):
    caller, name = talker.caller, talker.name
    assert caller.ok("ps", "--filter", f"name={name}", "--format", "{{.Names}} {{.State}} {{.Image}}") == (
        f"{name} running tiny\n"
    )
    table = caller.ok("ps", "--filter", "label=kind=talks", "--format", "table {{.Name}}\t{{.Ports}}").splitlines()
    assert table[0].split() == ["NAME", "PORTS"]
    assert str(talker.port) in table[1]
    form = "{{(index .NetworkSettings.Ports 0).HostPort}}"
    assert "is not understood" in caller.refused("inspect", "-f", form, name)
    form = "{{.State.Status}} {{.State.Running}} {{range .Config.Env}}{{.}};{{end}}{{json .Config.Labels}}"
    assert caller.ok("inspect", "-f", form, name) == 'running true {"kind": "talks"}\n'
    assert "there is no field .Nothing" in caller.refused("inspect", "-f", "{{.Nothing}}", name)
    assert caller.ok("ps", "-q", "--filter", f"publish={talker.port}") == f"{name}\n"


def test_wait_for_ready(talker):
    assert talker.caller.ok("wait", "--for", "ready", "--timeout", "100", talker.name) == f"{talker.name}\n"
    assert "is still running" in talker.caller.refused("wait", "--timeout", "0.1", talker.name, code=124)


def test_wait_for_healthy(talker):
    caller, name = talker.caller, f"checked-{talker.mode}-{talker.caller.name}"
    assert "has no health check" in caller.refused("wait", "--for", "healthy", talker.name)
    if not talker.guest:  # the wait reads a record that is the same in each mode
        check = "health: {exec: [test, -e, /ok], interval: 200ms, retries: 1000}\n"
        spec = caller.write(f"{name}.yaml", f"image: tiny\ncommand: [sh, -c, 'sleep 1000']\n{check}")
        caller.ok("up", "-q", "--mode", talker.mode, "--name", name, spec)
        waited = caller.refused("wait", "--for", "healthy", "--timeout", "0.5", name, code=124)
        assert f"{name} is" in waited
        caller.ok("exec", name, "--", "touch", "/ok")
        assert caller.ok("wait", "--for", "healthy", "--timeout", "100", name) == f"{name}\n"
        caller.ok("rm", "-f", name)


def test_a_paused_instance_does_nothing(talker):
    caller, name = talker.caller, talker.name
    assert caller.ok("pause", name) == f"{name}\n"

    def quiet():
        """Return whether nothing comes for ten of its pauses; what was on its way to the log may."""
        before = talker.lines()
        time.sleep(0.5)
        return talker.lines() == before

    wait_for(quiet)
    before = talker.lines()
    assert talker.inspect()["status"] == "paused"
    assert name in caller.ok("ps", "-q")
    for words in (("pause", name), ("exec", name, "--", "true"), ("kill", "-s", "TERM", name)):
        assert "is paused" in caller.vmctl(*words).err
    assert caller.ok("unpause", name) == f"{name}\n"
    wait_for(lambda: talker.lines() > before)
    assert "is not paused" in caller.vmctl("unpause", name).err
    assert talker.shell("echo alive") == "alive\n"


def test_a_guest_is_suspended_and_goes_on(talker):
    caller, name = talker.caller, talker.name
    if not talker.guest:
        text = caller.refused("suspend", name)
        assert "CRIU" in text
        assert f"`vmctl pause {name}`" in text
        assert "is running, and not suspended" in caller.refused("resume", name)
        return
    before = talker.inspect()
    assert caller.ok("suspend", name) == f"{name}\n"
    assert talker.inspect()["status"] == "suspended"
    assert caller.ok("ps", "-q") == ""
    for words in (("suspend", name), ("exec", name, "--", "true"), ("kill", name), ("pause", name), ("wait", name)):
        assert "is suspended" in caller.refused(*words)
    assert caller.ok("resume", name) == f"{name}\n"
    seen = talker.lines()
    wait_for(lambda: talker.lines() > seen)
    assert talker.shell("echo alive") == "alive\n"
    assert talker.inspect()["address"] == before["address"]


def test_stats(talker):
    rows = json.loads(talker.caller.ok("stats", "--no-stream", "--format", "json", talker.name))
    [row] = rows
    assert (row["name"], row["mode"]) == (talker.name, talker.mode)
    assert 0 <= row["cpu_s"] < 600
    assert row["cpu_percent"] >= 0
    assert row["memory_bytes"] > 1 << 16
    assert row["pids"] >= 1
    if talker.guest:
        assert 1 << 20 < row["guest_memory_bytes"] < 128 << 20
        assert row["memory_limit_bytes"] == 128 << 20
    assert talker.name in talker.caller.ok("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.NetIO}}")
    assert talker.name in talker.caller.ok("top", "--no-stream")


def test_processes(talker):
    listing = talker.caller.ok("top", talker.name)
    assert listing.split()[:5] == ["PID", "USER", "TIME", "MEMORY", "COMMAND"]
    assert "while :" in listing
    assert {line.split()[1] for line in listing.splitlines()[1:]} == {"0"}  # the id that it has inside


def test_a_command_in_the_background(talker):
    caller, name = talker.caller, talker.name
    script = "echo lost; test -t 0; cat; until [ -e /go ]; do usleep 20000; done; echo went >/gone"
    assert caller.ok("exec", "-d", "-e", "A=b", name, "--", "sh", "-c", script, stdin="typed") == ""
    assert "/gone" in caller.ok("top", name)
    talker.shell("touch /go")
    wait_for(lambda: talker.shell("cat /gone || :") == "went\n")
    assert "no-such" in caller.refused("exec", "-d", name, "--", "no-such", code=127)
    assert caller.vmctl("exec", "-d", name, "--", "/etc").code == 126
    assert "cannot be combined" in caller.refused("exec", "-dt", name, "--", "true")


def test_update(talker):
    caller, name = talker.caller, talker.name
    assert "no limit was given" in caller.refused("update", name)
    assert "expected a size" in caller.refused("update", "-m", "much", name)
    if not talker.groups:
        assert "control group" in caller.vmctl("update", "--cpus", "0.5", name).err
    if not talker.groups and not talker.guest:
        return
    cpus = ("--cpus", "0.5") if talker.groups else ()
    assert caller.ok("update", "--memory", "100M", *cpus, "--pids", "500", name) == f"{name}\n"
    document = talker.inspect()
    granted = document["limits"]["granted"]
    assert granted["memory_bytes"] == document["workload"]["resources"]["memory_bytes"] == 100 << 20
    assert granted["pids"] == 500
    assert not cpus or granted["cpus"] == 0.5
    if talker.guest:
        assert talker.shell("cat /sys/fs/cgroup/workload/pids.max") == "500\n"
        assert int(talker.shell("awk '/MemTotal/ { print $2 }' /proc/meminfo")) < 100 << 10
        assert "was booted with 128.0 MiB" in caller.vmctl("update", "-m", "1G", name).err
        assert not cpus or "virtual processor" in caller.vmctl("update", "--cpus", "2", name).err
    free = "$(($(awk '/MemAvailable/ { print $2 }' /proc/meminfo) - 16000))" if talker.guest else "8000"
    talker.shell(f"head -c $(({free} * 1024)) /dev/zero >/dev/shm/kept")
    assert "uses" in caller.vmctl("update", "-m", "96M" if talker.guest else "2M", name).err
    talker.shell("rm /dev/shm/kept")
    assert talker.inspect()["limits"]["granted"]["memory_bytes"] == 100 << 20
    caller.ok("update", "--memory", "128M", name)


@pytest.fixture
def tree(caller, tmp_path):
    """A folder of the caller with each kind of file that can be copied."""
    folder = os.path.join(caller.folder, f"tree-{os.urandom(3).hex()}")
    os.makedirs(f"{folder}/deep/er")
    files = {"a": "first\n", "deep/b": "x" * 300_000, f"deep/er/{'n' * 200}": "", "deep/-c": "-\n"}
    for name, content in files.items():
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            file.write(content)
    os.chmod(f"{folder}/a", 0o4751)
    os.symlink("../a", f"{folder}/deep/link")
    os.link(f"{folder}/deep/b", f"{folder}/deep/er/twin")
    os.mkfifo(f"{folder}/fifo")
    os.truncate(f"{folder}/deep/-c", 5_000_000)
    os.utime(f"{folder}/a", (1_600_000_000, 1_600_000_000))
    subprocess.run(["chown", "-hR", f"{caller.uid}:{caller.uid}", folder], check=True)
    return folder


def listing(folder):
    """Return what matters of each file of a folder of the host."""
    found = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(above, name)
            status = os.lstat(path)
            content = os.readlink(path) if os.path.islink(path) else None
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, folder)] = (status.st_mode & 0o170777, content)
    return found


def test_a_tree_there_and_back(talker, tree):
    caller, name = talker.caller, talker.name
    copied = caller.vmctl("cp", tree, f"{name}:/srv/in")
    assert copied.code == 0, copied
    assert "fifo" in copied.err
    assert talker.shell("stat -c '%a %u %Y' /srv/in/a; readlink /srv/in/deep/link; wc -c < /srv/in/deep/er/twin") == (
        "751 0 1600000000\n../a\n300000\n"
    )
    talker.shell("mkfifo /srv/in/pipe; chmod 6755 /srv/in/deep/b; chown 33:44 /srv/in/a")
    back = f"{tree}-back"
    copied = caller.vmctl("cp", f"{name}:/srv/in", back)
    assert copied.code == 0, copied
    assert "pipe" in copied.err
    expected = {path: value for path, value in listing(tree).items() if path != "fifo"}
    expected["deep/b"] = expected["deep/er/twin"] = (0o100755, expected["deep/b"][1])
    assert listing(back) == expected
    assert {os.lstat(f"{back}/{path}").st_uid for path in expected} == {caller.uid}
    caller.ok("cp", f"{name}:/srv/in/.", back)  # once more, over it
    assert listing(back) == expected
    caller.ok("cp", "-q", f"{name}:/srv/in", back)  # into a folder that is there
    assert sorted(os.listdir(f"{back}/in")) == ["a", "deep"]


def test_single_files(talker, tree):
    caller, name = talker.caller, talker.name
    talker.shell("rm -rf /srv/one; mkdir -p /srv/one; echo inside > /srv/one/f; ln -s f /srv/one/l")
    for source, target, at in (("f", "new", "new"), ("f", "", "f"), ("f", "new", "new")):
        caller.ok("cp", f"{name}:/srv/one/{source}", os.path.join(tree, target))
        with open(os.path.join(tree, at), encoding="utf-8") as file:
            assert file.read() == "inside\n"
    caller.ok("cp", f"{name}:srv/one/l", tree)
    assert os.readlink(f"{tree}/l") == "f"
    caller.ok("cp", "-L", f"{name}:/srv/one/l", f"{tree}/followed")
    assert not os.path.islink(f"{tree}/followed")
    caller.ok("cp", f"{tree}/a", f"{name}:/srv/one")
    caller.ok("cp", f"{tree}/a", f"{name}:/srv/one/f")
    caller.ok("cp", f"{tree}/deep/-c", f"{name}:/srv/one/-c")
    assert talker.shell("cat /srv/one/a /srv/one/f; wc -c < /srv/one/-c") == "first\nfirst\n5000000\n"
    for source, target, text in (
        (f"{name}:/srv/none", tree, "there is no file or folder"),
        (f"{name}:/srv/one/f", f"{tree}/none/", "there is no folder"),
        (f"{name}:/srv/one", f"{tree}/a", "is not a folder"),
        (f"{tree}/none", f"{name}:/", "there is no file or folder"),
        (f"{tree}/a", f"{name}:/srv/none/", "there is no folder"),
        (tree, f"{name}:/srv/one/f", "a folder"),
        (f"{name}:/etc", f"{name}:/", "one of SOURCE and TARGET"),
        (tree, "elsewhere", "one of SOURCE and TARGET"),
        ("no-such:/x", ".", "there is no instance"),
    ):
        assert text in caller.refused("cp", source, target), (source, target)


def test_a_tar_through_a_pipe(talker, caller):
    name = talker.name
    talker.shell("rm -rf /srv/t; mkdir -p /srv/t/d; echo one > /srv/t/d/f; ln /srv/t/d/f /srv/t/g; ln -s d/f /srv/t/l")
    words, options = ([VMCTL], {}) if not caller.uid else caller.user.command(VMCTL)
    tar = subprocess.run([*words, "cp", f"{name}:/srv/t", "-"], capture_output=True, check=True, **options).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert sorted(archive.getnames()) == ["t", "t/d", "t/d/f", "t/g", "t/l"]
    talker.shell("mkdir -p /srv/u")
    subprocess.run([*words, "cp", "-", f"{name}:/srv/u"], input=tar, check=True, **options)
    assert talker.shell("cat /srv/u/t/d/f /srv/u/t/g /srv/u/t/l") == "one\none\none\n"
    for data, text in ((b"no tar" * 200, ""), (tar[:700], "")):
        done = subprocess.run([*words, "cp", "-", f"{name}:/srv/u"], input=data, capture_output=True, **options)
        assert done.returncode == 125, done
        assert text.encode() in done.stderr


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_of_another_tar_is_refused(tmp_path, form):
    """Its entry has a map of the holes in front of the data: as a file it would have the wrong content."""
    source, target = tmp_path / "holes", tmp_path / "target"
    source.touch()
    os.truncate(source, 5_000_000)
    source.open("r+b").write(b"begin")
    target.mkdir()
    tar = subprocess.run(
        ["tar", f"--format={form}", "-Sc", "-C", str(tmp_path), "holes"], capture_output=True, check=True
    )
    read = io.BytesIO(tar.stdout).read
    with pytest.raises(TarError, match="sparse"):
        receive(read, Target(str(target), "", tar=True), lambda path: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    assert os.listdir(target) == []


def test_events(talker, caller):
    words, options = ([VMCTL], {}) if not caller.uid else caller.user.command(VMCTL)
    name = f"events-{talker.mode}"
    form = "{{.Action}} {{.Name}} {{.ExitCode}}"
    watch = subprocess.Popen([*words, "events", "--format", form], stdout=subprocess.PIPE, text=True, **options)
    try:
        wait_for(lambda: _watches(watch.pid) >= 2)  # the folder of all instances, and that of this one
        caller.ok("pause", talker.name)
        assert watch.stdout.readline().split() == ["pause", talker.name]
        caller.ok("unpause", talker.name)
        assert watch.stdout.readline().split() == ["unpause", talker.name]
        if not talker.guest:
            run = ("run", "--mode", talker.mode, "--name", name, "--keep", "tiny", "--", "sh", "-c", "sleep 1; exit 3")
            assert caller.vmctl(*run).code == 3
            caller.ok("rm", name)
            found = [watch.stdout.readline().split() for _ in range(4)]
            assert found == [["create", name], ["start", name], ["die", name, "3"], ["destroy", name]]
    finally:
        watch.kill()
        watch.communicate()


def _watches(pid):
    """Return how many folders a process watches (proc(5), /proc/PID/fdinfo)."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with suppress(FileNotFoundError), open(f"/proc/{pid}/fdinfo/{name}", encoding="ascii") as file:
            found += sum(line.startswith("inotify ") for line in file)
    return found


def test_created_stopped_renamed(talker, caller):
    """The last one: it ends the instance of the other tests."""
    name, new = talker.name, f"new-{talker.mode}-{caller.name}"
    created = f"made-{talker.mode}-{caller.name}"
    assert (
        caller.ok("create", "--mode", talker.mode, "--name", created, "tiny", "--", "sleep", "1000") == f"{created}\n"
    )
    assert caller.inspect(created)["status"] == "created"
    assert "is taken" in caller.refused("rename", created, name)
    assert "was not started" in caller.refused("wait", "--timeout", "0.1", created, code=124)
    assert "is running" in caller.refused("rename", name, new)
    talker.shell("echo kept > /kept")
    address = talker.inspect()["address"]
    caller.ok("pause", name)
    caller.ok("stop", "-t", "5", name)
    assert talker.inspect()["status"] == "exited"
    assert caller.ok("rename", name, new) == f"{new}\n"
    assert f"{new} is not running\n" in caller.vmctl("stats", "--no-stream", new).err
    assert "there is no instance" in caller.refused("inspect", name)
    if talker.guest:  # a killed `cp` leaves a guest on its disk, which the next command that needs the disk removes
        killed = caller.start("cp", f"{new}:/kept", "-")
        wait_for(lambda: "files-" in caller.ok("ps", "-q"))
        killed.kill()
        killed.wait()
    caller.ok("cp", f"{new}:/kept", f"{caller.folder}/kept-{new}")
    with open(f"{caller.folder}/kept-{new}", encoding="utf-8") as file:
        assert file.read() == "kept\n"
    caller.ok("cp", f"{caller.folder}/kept-{new}", f"{new}:/put")
    assert f"no file or folder /none in {new}" in caller.refused("cp", f"{new}:/none", "-")
    assert caller.inspect(new)["status"] == "exited"
    assert "files-" not in caller.ok("ps", "-aq")
    caller.ok("start", "-q", new)
    assert caller.ok("exec", new, "--", "cat", "/kept") == "kept\n"
    assert caller.ok("exec", new, "--", "stat", "-c", "%u", "/put") == "0\n"
    if not talker.guest:
        caller.ok("start", "-q", created)
        assert caller.ok("exec", created, "--", "echo", "in") == "in\n"
        assert "one instance" in caller.refused("start", "-a", new, created)
    assert caller.inspect(new)["address"] == address
    caller.ok("rm", "-f", new, created)
