"""`start` and `restart`: an instance comes back with its files, address and ports, in every mode and after any end."""

import json
import os
import re
import signal
import threading
import time

import pytest
from support.commands import free_port, get, inspect, ok, refused, vmctl, wait_for
from support.commands import start as spawn
from support.ordinary_user import OrdinaryUser
from support.restarted import restart_host

from images.store import store
from vmctl import again, backends, paths
from vmctl.instances import instance
from vmctl.journal import Journal
from vmctl.linux import mountinfo, processes

MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
# counts its runs in a file of the root, and changes the root folder itself
SERVE = """
image: tiny
command: [sh, -c, 'echo run >>/runs; wc -l </runs; stat -c "%a %u" /; chmod 711 /; chown 5 /; exec httpd -f -p {inner}']
ports: ["{outer}:{inner}"]
resources: {{memory: 128M, pids: 64}}
ready: {{log: '^7[15][15] ', timeout: 240s}}
"""
IDLE = "image: tiny\ncommand: [sh, -c, 'echo run >>/runs; echo said; exec sleep 1000']\n"
SAID = f"{IDLE}ready: {{log: said}}\n"


@pytest.fixture
def root(own_root):
    yield own_root
    for name in instance.names():
        vmctl("rm", "-f", name)
    mountinfo.unmount_all(str(own_root))


def write(root, name, text):
    path = root / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def row(name):
    (found,) = (row for row in json.loads(ok("ps", "-a", "--format", "json")) if row["name"] == name)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_an_instance_comes_back_as_it_was(guest_root, tmp_path, request, mode):
    inner, outer, name = free_port(), free_port(), f"again-{mode}"
    path = write(tmp_path, name, SERVE.format(inner=inner, outer=outer))
    ok("up", "--mode", mode, path)
    request.addfinalizer(lambda: vmctl("down", "-t", "0", name))
    first = inspect(name)
    result = vmctl("start", name)
    assert (result.code, result.out, result.err) == (0, f"{name}\n", f"{name} is running already\n")
    assert ok("stop", name) == f"{name}\n"
    assert ok("start", "-q", name) == f"{name}\n"
    second = inspect(name)
    assert ok("logs", name) == "1\n755 0\n2\n711 5\n"  # the files of the first run, its log and its root folder
    assert get(outer, "/runs") == (200, "run\nrun\n")
    assert (second["address"], second["limits"]) == (first["address"], first["limits"])
    assert (second["starts"], second["exit_code"], second["status"]) == (2, None, "running")
    assert second["pid"] != first["pid"]
    assert 0 < second["marks_s"]["T1"] < second["marks_s"]["T6"]
    assert len(second["journal"]) <= 2 * len(first["journal"])
    if backends.load(mode).features.own_kernel:
        os.kill(second["pid"], signal.SIGKILL)
        wait_for(lambda: row(name)["status"] != "running")
        assert (row(name)["status"], row(name)["reason"]) == ("failed", "QEMU was killed")
    ok("down", "-t", "0", name)
    assert "there is no instance" in refused("start", name)


@EACH_QUICK_MODE
def test_an_end_of_any_kind_can_be_started_again(root, mode):
    ok("up", "--mode", mode, write(root, "web", SAID))
    inst = instance.load("web")
    for end in (
        lambda: ok("kill", "web"),
        lambda: os.kill(inst.state.pid, signal.SIGKILL),
        lambda: os.kill(inst.state.supervisor_pid, signal.SIGKILL),
        lambda: ok("stop", "-t", "0", "web"),
    ):
        end()
        wait_for(lambda: row("web")["status"] == "exited")
        ok("start", "web")
        inst.recall()
    assert ok("restart", "-q", "-t", "0", "web") == "web\n"
    assert ok("exec", "web", "--", "wc", "-l", "/runs") == "6 /runs\n"
    assert ok("logs", "web") == "said\n" * 6


@EACH_QUICK_MODE
def test_it_starts_after_a_restart_of_the_host(root, mode):
    ok("up", "--mode", mode, write(root, "web", SAID))
    ok("up", "--mode", mode, write(root, "other", SAID))
    before = inspect("other")["address"]
    restart_host("other")
    restart_host("web") if os.path.exists(paths.run_root()) else None
    ok("start", "other")
    assert (inspect("other")["address"], row("other")["status"], row("other")["reason"]) == (before, "running", None)
    assert ok("exec", "other", "--", "wc", "-l", "/runs") == "2 /runs\n"


def test_the_writable_layer_of_a_size_stays(root):
    ok("up", write(root, "web", f"{SAID}resources: {{disk: 8M}}\n"))
    for _ in range(2):
        ok("restart", "-t", "0", "web")
    assert ok("exec", "web", "--", "wc", "-l", "/runs") == "3 /runs\n"
    assert inspect("web")["limits"]["granted"]["disk_bytes"] == 8 << 20
    ok("stop", "-t", "0", "web")
    mountinfo.unmount_all(instance.load("web").path("disk"))
    with open(instance.load("web").path("disk.img"), "r+b") as file:
        file.truncate(4096)
    assert "is damaged" in refused("start", "web")
    assert row("web")["status"] == "failed"
    ok("rm", "web")


def test_a_name_that_belongs_to_no_image_any_more(tmp_path, monkeypatch):
    """The instance keeps the image with which it was made, also if another one gets the name."""
    ok("image", "export", "tiny", "-o", str(tmp_path / "tiny.tar"))
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "root"))
    ok("image", "import", "--name", "mine", str(tmp_path / "tiny.tar"))
    ok("up", write(tmp_path, "web", SAID.replace("tiny", "mine")))
    digest = inspect("web")["image_digest"]
    ok("stop", "-t", "0", "web")
    ok("image", "rm", "-f", "mine")
    assert store.ls() == []
    ok("start", "web")
    (tmp_path / "folder").mkdir()
    ok("image", "import", "--name", "mine", str(tmp_path / "folder"))
    ok("restart", "-t", "0", "web")
    assert (inspect("web")["image_digest"], ok("exec", "web", "--", "wc", "-l", "/runs")) == (digest, "3 /runs\n")
    ok("down", "-t", "0", "web")


def test_a_start_that_cannot_be_leaves_the_instance_as_it_was(root):
    port, source = free_port(), root / "volume"
    source.mkdir()
    text = f"{IDLE}ports: ['{port}:80']\nvolumes: ['{source}:/v']\n"
    ok("up", write(root, "web", text))
    ok("stop", "-t", "0", "web")
    before = row("web")
    ok("up", write(root, "thief", f"{IDLE}ports: ['{port}:80']\n"))
    assert f"{port}/tcp is taken by the instance thief" in refused("start", "web")
    ok("down", "-t", "0", "thief")
    source.rmdir()
    assert "volume does not exist" in refused("start", "web")
    assert row("web") == before
    source.mkdir()
    ok("start", "web")


def test_a_start_that_fails_is_kept_and_says_why(root):
    script = "echo said; [ ! -e /good ] || echo ready; exec sleep 1000"
    path = write(root, "web", f"image: tiny\ncommand: [sh, -c, '{script}']\nready: {{log: ready, timeout: 2s}}\n")
    assert "was not ready" in vmctl("up", path).err
    assert instance.names() == []
    assert vmctl("up", "--keep", path).code == 124
    assert (row("web")["status"], row("web")["exit_code"], row("web")["exit_source"]) == ("failed", 124, "vmctl")
    assert "was not ready within 2" in row("web")["reason"]
    assert ok("logs", "web") == "said\n"
    assert vmctl("wait", "web").code == 124
    assert vmctl("start", "web").code == 124
    assert ok("exec" if row("web")["status"] == "running" else "logs", "web") == "said\nsaid\n"
    os.mknod(instance.load("web").path("upper/good"))
    wait_for(lambda: vmctl("start", "web").code == 0)  # a busy host may need more than its two seconds
    assert (row("web")["status"], row("web")["reason"]) == ("running", None)


def test_run_keeps_its_instance_if_it_is_asked_to(root):
    result = vmctl("run", "--keep", "--name", "kept", "tiny", "--", "sh", "-c", "echo out; touch /made; exit 7")
    assert (result.code, result.out) == (7, "out\n")
    assert (row("kept")["status"], row("kept")["exit_code"]) == ("exited", 7)
    assert "/made" in ok("diff", "kept")
    assert vmctl("start", "kept").code == 0
    assert vmctl("wait", "kept").code == 7
    assert ok("logs", "kept") == "out\n"


def test_a_start_whose_command_is_killed_can_be_repeated(root):
    ok("up", write(root, "web", f"{IDLE}ports: ['{free_port()}:80']\n"))
    for after_s in (0.05, 0.1, 0.15, 0.2, 0.25):
        ok("kill", "web") if row("web")["status"] == "running" else None
        command = spawn("start", "web")
        time.sleep(after_s)
        command.kill()
        command.communicate()
        wait_for(lambda: row("web")["status"] != "created")
        assert row("web")["status"] in ("running", "exited", "failed")
        ok("start", "web")
        assert row("web")["status"] == "running"
    count = int(ok("exec", "web", "--", "sh", "-c", "wc -l </runs"))
    assert 2 <= count <= 11
    ok("down", "-t", "0", "web")
    assert not os.listdir(os.path.join(paths.state_root(), "leases"))


@EACH_QUICK_MODE
def test_of_two_starts_at_once_one_starts(root, mode):
    ok("up", "--mode", mode, write(root, "web", SAID))
    ok("stop", "-t", "0", "web")
    found = []
    threads = [threading.Thread(target=lambda: found.append(vmctl("start", "web"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.code for result in found] == [0] * 4
    assert sum("running already" in result.err for result in found) == 3
    assert ok("exec", "web", "--", "wc", "-l", "/runs") == "2 /runs\n"


def test_a_removed_instance_is_not_started(root):
    ok("up", write(root, "web", IDLE))
    inst = instance.load("web")
    with inst.locked():
        command = spawn("start", "web")
        time.sleep(0.3)
        processes.end(inst.state.pid, inst.state.pid_start)
        wait_for(lambda: not processes.alive(inst.state.supervisor_pid, inst.state.supervisor_start))
        from vmctl import removal

        removal.remove(inst, backends.load("container"))
    assert command.wait() == 125
    assert b"there is no instance web" in command.communicate()[1]


def test_several_names(root):
    for name in ("one", "two"):
        ok("up", write(root, name, IDLE))
        ok("stop", "-t", "0", name)
    result = vmctl("start", "-q", "one", "none", "two")
    assert (result.code, result.out) == (125, "one\ntwo\n")
    assert result.err.startswith("vmctl: there is no instance none\n")


def test_an_object_that_was_struck_and_made_again_is_in_the_journal(tmp_path):
    """Before, an entry counted as struck for ever: the second freeze or mount of the same name was forgotten."""
    journal = Journal(str(tmp_path / "journal"))
    for _ in range(2):
        journal.record("frozen", name="web")
        assert journal.entries() == [{"kind": "frozen", "name": "web"}]
        journal.strike("frozen", name="web")
        assert journal.entries() == []
    journal.replace([{"kind": "ids", "first": 1}, {"kind": "ids", "first": 1}])
    assert journal.entries() == [{"kind": "ids", "first": 1}]


def test_a_start_asks_only_what_was_recorded(root):
    """An accelerator that was chosen at the first start is that of the next one."""
    ok("up", write(root, "web", IDLE))
    inst = instance.load("web")
    ok("stop", "-t", "0", "web")
    inst.recall()
    inst.state.options = {"no-such": "option"}
    inst.save()
    assert "has no option no-such" in refused("start", "web")


def test_an_ordinary_user_starts_instances_again():
    with OrdinaryUser() as user:
        user.give_image()
        text = SERVE.replace("memory: 128M, pids: 64", "")
        for mode in QUICK:
            port = free_port()
            user.ok("up", "--mode", mode, user.write("web.yaml", text.format(inner=port, outer=port)))
            user.ok("stop", "-t", "0", "web")
            user.ok("start", "web")
            assert re.fullmatch(r"1\n755 0\n2\n711 5\n", user.ok("logs", "web"))
            assert get(port, "/runs") == (200, "run\nrun\n")
            user.ok("down", "-t", "0", "web")


def test_a_start_waits_unless_told_otherwise(root):
    path = write(root, "web", f"{IDLE}ready: {{exec: [test, -e, /never], timeout: 60s}}\n")
    ok("up", "--no-wait", path)
    ok("stop", "-t", "0", "web")
    began_s = time.monotonic()
    ok("start", "--no-wait", "web")
    assert time.monotonic() - began_s < 20
    assert again.start("web") is None


@EACH_QUICK_MODE
def test_limits_change_while_the_port_of_the_probe_is_in_use(root, tmp_path, mode):
    """In mode host it is a port of the host, which the instance itself has taken."""
    inner = free_port()
    ok(
        "up",
        "--mode",
        mode,
        write(
            tmp_path,
            "limited",
            SERVE.format(inner=inner, outer=free_port()).replace("log: '^7[15][15] '", f"tcp: {inner}"),
        ),
    )
    assert ok("update", "--pids", "60", "limited") == "limited\n"
    assert inspect("limited")["workload"]["resources"]["pids"] == 60
