"""Restarts and health checks: the same words and results in every mode, and as root as well as an ordinary user."""

import json
import os
import signal
import time
from contextlib import suppress

import pytest
from support.commands import free_port, get, inspect, ok, passes_signals_on, refused, start, vmctl, wait_for
from support.full_disk import full_disk
from support.ordinary_user import OrdinaryUser

from vmctl import backends, paths
from vmctl.instances import instance
from vmctl.keeping import health, restart
from vmctl.linux import mountinfo, processes
from vmctl.spec.workload import Health, Restart, Seconds, Workload

MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
RUN = "echo run; touch /ok; "


@pytest.fixture
def root(own_root):
    yield own_root
    for name in instance.names():
        vmctl("rm", "-f", name)
    mountinfo.unmount_all(str(own_root))


def row(name):
    (found,) = (row for row in json.loads(ok("ps", "-a", "--format", "json")) if row["name"] == name)
    return found


def runs(name):
    return ok("logs", name).count("run\n")


def run(mode, *flags, script=f"{RUN}sleep 1000", name="web"):
    network = ("--network", "none") if backends.load(mode).features.own_network else ()
    ok("run", "-d", "--mode", mode, *network, "--name", name, *flags, "tiny", "--", "sh", "-c", script)
    return instance.load(name)


def nothing_waits(inst):
    """Return whether the process that waits for the next start is gone."""
    return not processes.alive(inst.state.supervisor_pid, inst.state.supervisor_start)


# Restarts


@EACH_QUICK_MODE
@pytest.mark.parametrize(
    ("policy", "code", "wanted"), [("no", 3, 1), ("on-failure", 0, 1), ("on-failure:2", 3, 3)], ids=str
)
def test_a_policy_that_ends(root, mode, policy, code, wanted):
    run(mode, "--restart", policy, script=f"echo run; exit {code}")
    wait_for(lambda: row("web")["status"] == "exited")
    found = row("web")
    assert (runs("web"), found["restarts"], found["exit_code"]) == (wanted, wanted - 1, code)
    wait_for(lambda: nothing_waits(instance.load("web")))
    assert f"exited ({code}{f', restarts {wanted - 1}' if wanted > 1 else ''})" in ok("ps", "-a")


@EACH_QUICK_MODE
@pytest.mark.parametrize(
    ("end", "policy"), [("stop", "unless-stopped"), ("kill", "always"), ("down", "always"), ("rm -f", "always")]
)
def test_a_loop_ends_at_once(root, mode, policy, end):
    run(mode, "--restart", policy, script="echo run; exit 0")
    wait_for(lambda: runs("web") > 1 and "restarting (0, restarts" in ok("ps"))  # it also runs for moments
    wait_for(lambda: refused("rm", "web").startswith("vmctl: web is restarting"))
    inst = instance.load("web")
    ok(*end.split(), "web")
    wait_for(lambda: nothing_waits(inst))
    if end in ("down", "rm -f"):
        assert instance.names() == []
        return
    before = runs("web")
    time.sleep(restart.FIRST_S * 2**3)  # longer than the pause in which it was ended
    assert (runs("web"), row("web")["status"]) == (before, "exited")
    assert row("web")["exit_code"] in (0, 128 + signal.SIGTERM)  # the end may have come in the middle of a run
    ok("start", "--at-boot", "web")
    assert (row("web")["status"] == "exited") == (policy == "unless-stopped")


@EACH_QUICK_MODE
def test_a_killed_workload_comes_back_as_it_was(root, mode):
    inner, outer = free_port(), free_port()
    command = ["sh", "-c", f"echo run; echo x >>/srv/runs; exec httpd -f -p {inner} -h /srv"]
    path = root / "web.yaml"
    path.write_text(
        f"image: tiny\ncommand: {json.dumps(command)}\nrestart: always\nports: ['{outer}:{inner}']\n"
        f"ready: {{tcp: {inner}}}\nfiles: [{{path: /srv/a}}]\n"
    )
    ok("up", "--mode", mode, str(path))
    before = inspect("web")
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: row("web")["status"] == "running" and row("web")["restarts"] == 1)
    assert wait_for(lambda: _answer(outer)) == (200, "x\nx\n")
    after = inspect("web")
    assert (after["address"], after["limits"]) == (before["address"], before["limits"])
    assert after["pid"] != before["pid"]
    for _ in range(2):
        last = row("web")
        os.kill(last["pid"], signal.SIGKILL)
        wait_for(lambda: row("web")["pid"] and row("web")["restarts"] > last["restarts"])  # noqa: B023
    assert len(inspect("web")["journal"]) <= len(after["journal"]) + 1
    ok("restart", "-t", "0", "web")
    assert row("web")["restarts"] == 0  # its user has started it


def _answer(port):
    try:
        return get(port, "/runs")
    except OSError:
        return None


def reads_from_its_end(pid, path):
    """Return whether a process has opened a file and moved to its end."""
    with suppress(FileNotFoundError):  # it has closed that one meanwhile
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == path:
                with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                    return int(file.readline().split()[1]) == os.path.getsize(path) > 0
    return False


@EACH_QUICK_MODE
@pytest.mark.parametrize("flags", [(), ("-i",)], ids=["output only", "input too"])
def test_attach_goes_on_through_restarts(root, mode, flags):
    """And `start -a` shows a run from its first line."""
    run(mode, *flags, "--restart", "on-failure:1", script="echo run; while [ ! -e /end ]; do sleep 0.1; done; exit 7")
    wait_for(lambda: os.path.getsize(instance.load("web").stdout_log) == len("run\n"))
    with start("attach", "web") as attached:
        passes_signals_on(attached.pid)
        wait_for(lambda: flags or reads_from_its_end(attached.pid, instance.load("web").stdout_log))
        assert vmctl("exec", "web", "--", "touch", "/end").code in (
            0,
            137,
        )  # its own end may come before that of `exec`
        output, errors = attached.communicate(timeout=120)
    assert (output, attached.returncode) == (b"run\n", 7), (errors, ok("inspect", "web"))
    assert (b"started again" in errors) == bool(flags)
    wait_for(lambda: nothing_waits(instance.load("web")))
    again = vmctl("start", "-a", "web")
    assert (again.code, again.out) == (7, "run\nrun\n")


@EACH_QUICK_MODE
def test_start_a_shows_each_line_of_each_run_once(root, mode):
    """Of what is written while it connects, the log shows what came before and the connection the rest."""
    network = ("--network", "none") if backends.load(mode).features.own_network else ()
    script = "i=0; while [ $i -lt 400 ]; do i=$((i + 1)); echo $i; done; exit 7"
    flags = ("--mode", mode, *network, "--name", "web", "-i", "--restart", "on-failure:2")
    ok("create", *flags, "tiny", "--", "sh", "-c", script)
    lines = [str(number) for number in range(1, 401)]
    result = vmctl("start", "-a", "web")
    assert (result.code, result.out.split()) == (7, lines * 3)


@EACH_QUICK_MODE
def test_a_start_that_fails_is_tried_again(root, mode):
    """The port is taken when it is to be started again, and free later."""
    import socket

    port = free_port()
    work = f"image: tiny\ncommand: [sleep, '1000']\nrestart: always\nports: ['{port}:{free_port()}']\n"
    (root / "web.yaml").write_text(work)
    ok("up", "--mode", mode, str(root / "web.yaml"))
    inst = instance.load("web")
    (forwarder,) = (entry for entry in inst.journal.entries() if entry.get("role") == "forwarder")
    os.kill(forwarder["pid"], signal.SIGKILL)
    wait_for(lambda: not processes.alive(forwarder["pid"], forwarder["start"]))
    with socket.create_server(("127.0.0.1", port)):
        os.kill(inst.state.pid, signal.SIGKILL)
        wait_for(lambda: row("web")["status"] == "restarting" and row("web")["restarts"] > 2)
        assert "could not be started again" in instance.load("web").state.reason
    wait_for(lambda: row("web")["status"] == "running")


@pytest.mark.parametrize("mode", QUICK[:1])
def test_a_loop_ends_on_a_full_disk(mode, monkeypatch):
    images = paths.images_root()
    with full_disk("blocks") as disk:
        monkeypatch.setenv("VMCTL_ROOT", disk.root)
        os.makedirs(paths.state_root())
        os.symlink(images, paths.images_root())
        inst = run(mode, "--restart", "always", "--health-cmd", "true", script="echo run; exit 1")
        wait_for(lambda: row("web")["status"] == "restarting")
        disk.fill()
        time.sleep(1.0)  # it goes on in its way
        assert row("web")["status"] in ("restarting", "created", "running")
        ok("stop", "-t", "0", "web")
        inst.recall()
        assert row("web")["status"] in ("exited", "failed")
        wait_for(lambda: nothing_waits(inst))
        ok("rm", "web")


def test_the_pause_grows_to_a_minute():
    inst = instance.Instance("web", Workload("web", "tiny", restart=Restart("always")), instance.State(id="0" * 8))
    pauses = [restart._next(inst, failed=True) for _ in range(30)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 60.0
    assert inst.state.restarts == 30
    inst.state.stopped = True
    assert restart._next(inst, failed=True) is None


@pytest.mark.parametrize("flags", [("--restart", "always"), ("--health-cmd", "true")], ids=" ".join)
def test_what_needs_the_background_is_refused_in_the_foreground(root, flags):
    assert "for instances in the background" in refused("run", *flags, "tiny", "--", "true")
    assert instance.names() == []


# Health


@EACH_QUICK_MODE
def test_the_health_follows_the_check(root, mode):
    flags = ("--health-cmd", "echo seen; test -e /ok", "--health-interval", "200ms", "--health-retries", "2")
    run(mode, *flags)
    wait_for(lambda: row("web")["health"] == "healthy")
    assert "running (healthy)" in ok("ps")
    ok("exec", "web", "--", "rm", "/ok")
    wait_for(lambda: row("web")["health"] == "unhealthy")
    last = inspect("web")["health_check"]["last"]
    assert (last["code"], last["output"]) == (1, "seen\n")
    assert last["failures"] >= 2
    ok("exec", "web", "--", "touch", "/ok")
    wait_for(lambda: row("web")["health"] == "healthy")
    ok("stop", "-t", "0", "web")
    assert row("web")["health"] is None


@EACH_QUICK_MODE
def test_checks_by_http_and_tcp(root, mode):
    port = free_port()
    for name, check in (("page", f"http: {port}/x"), ("port", f"tcp: {port}")):
        path = root / f"{name}.yaml"
        path.write_text(
            f"image: tiny\ncommand: [httpd, -f, -p, '{port}', -h, /srv]\nfiles: [{{path: /srv/x, content: hi}}]\n"
            f"health: {{{check}, interval: 200ms, retries: 1}}\n"
        )
        ok("up", "--mode", mode, str(path))
        wait_for(lambda: row(name)["health"] == "healthy")  # noqa: B023
        if name == "page":
            ok("exec", name, "--", "rm", "/srv/x")
            wait_for(lambda: row("page")["health"] == "unhealthy")
            assert "status 404" in inspect(name)["health_check"]["last"]["output"]
        ok("down", "-t", "0", name)


def test_the_check_of_an_image(root, tmp_path):
    file = tmp_path / "Dockerfile"
    file.write_text("FROM tiny\nHEALTHCHECK --interval=1s --retries=1 CMD test -e /ok\nCMD sleep 1000\n")
    built = vmctl("image", "build", "-t", "checked", str(tmp_path))
    assert built.code == 0
    try:
        assert "is stored in the image" not in built.err  # there is no such warning
        for name, flags, wanted in (
            ("mine", ("--health-interval", "300ms"), 0.3),
            ("plain", (), 1.0),
            ("none", ("--no-healthcheck",), None),
        ):
            ok("run", "-d", "--name", name, *flags, "checked", "--", "sh", "-c", "touch /ok; sleep 1000")
            check = inspect(name)["health_check"]
            assert (check and check["interval_s"]) == wanted
            if wanted:
                wait_for(lambda: row(name)["health"] == "healthy")  # noqa: B023
            else:
                assert row(name)["health"] is None
    finally:
        vmctl("down", "-t", "0", "--all")
        ok("image", "rm", "checked")


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ({}, None),
        ({"Test": ["NONE"]}, None),
        ({"Test": []}, None),
        ({"Test": ["CMD-SHELL", "x y"]}, ["/bin/sh", "-c", "x y"]),
        ({"Test": ["CMD", "x", "y"]}, ["x", "y"]),
        ({"Test": ["CMD"]}, None),
        ({"Test": ["CMD", 3]}, None),
        ({"Test": ["CMD", "a\0b"]}, None),
        ({"Test": "x"}, None),
        ({"Test": [["CMD"]]}, None),
    ],
    ids=str,
)
def test_forms_of_a_check_in_an_image(image, wanted):
    found, warning = health.resolved(None, image)
    assert found.get("exec") == wanted
    assert bool(warning) == (wanted is None and image.get("Test") not in (None, [], ["NONE"]))


def test_times_of_a_check():
    image = {"Test": ["CMD", "x"], "Interval": 2 * 10**9, "Timeout": -1, "Retries": "many", "StartPeriod": 10**30}
    assert health.resolved(None, image)[0] == {
        "exec": ["x"],
        "interval_s": 2.0,
        "timeout_s": 30.0,
        "retries": 3.0,
        "start_period_s": 365 * 86400.0,
        "start_interval_s": 1.0,
    }
    assert health.resolved(Health(interval_s=Seconds(0.5)), image)[0]["interval_s"] == 0.5
    assert health.resolved(Health(disable=True), image) == ({}, "")
    assert health.resolved(Health(tcp=80), image)[0]["tcp"] == 80


def test_nothing_is_kept_without_need(root):
    """The supervisor of an instance without check and policy has no keeper: its memory is a published number."""
    plain, kept = run("container", name="plain"), run("container", "--restart", "always", name="kept")
    assert b"VMCTL_KEEP" not in environment(plain.state.supervisor_pid)
    assert b"VMCTL_KEEP" in environment(kept.state.supervisor_pid)


def environment(pid):
    """The names of the variables of a supervisor, when it has become one: `up` does not wait for that."""

    def names():
        with open(f"/proc/{pid}/environ", "rb") as file:
            return [line.partition(b"=")[0] for line in file.read().split(b"\0")]

    wait_for(lambda: names()[0] == b"LC_ALL")
    return names()


@pytest.mark.timeout(600)
def test_as_an_ordinary_user():
    with OrdinaryUser() as user:
        user.give_image()
        flags = ("--network", "none", "--restart", "always", "--health-cmd", "test -e /ok", "--name", "web")
        user.ok("run", "-d", *flags, "tiny", "--", "sh", "-c", f"{RUN} sleep 1000")

        def seen():
            return json.loads(user.ok("ps", "-a", "--format", "json"))[0]

        wait_for(lambda: seen()["health"] == "healthy")
        os.kill(seen()["pid"], signal.SIGKILL)
        wait_for(lambda: seen()["restarts"] == 1 and seen()["health"] == "healthy")
        assert user.ok("logs", "web") == "run\nrun\n"
        user.ok("down", "-t", "0", "web")


@pytest.mark.timeout(900)
def test_a_guest_is_checked_and_started_again(guest_root, request):
    """All of it in one guest: its boots take most of the time."""
    flags = ("--restart", "on-failure:1", "--health-cmd", "test -e /ok", "--health-interval", "1s")
    request.addfinalizer(lambda: vmctl("rm", "-f", "guest"))
    run("vm", *flags, script=f"{RUN}while [ ! -e /end ]; do sleep 0.2; done; exit 7", name="guest")
    wait_for(lambda: row("guest")["health"] == "healthy")
    ok("exec", "guest", "--", "rm", "/ok")
    wait_for(lambda: inspect("guest")["health_check"]["last"]["failures"] > 0)
    ok("exec", "guest", "--", "touch", "/end")
    wait_for(lambda: row("guest")["status"] == "exited")
    found = row("guest")
    assert (found["exit_code"], found["restarts"], runs("guest")) == (7, 1, 2)
    wait_for(lambda: nothing_waits(instance.load("guest")))
