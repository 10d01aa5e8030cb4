"""Compose files of usual shapes run as they are; the comments in tests/data/compose are the expectation."""

import os
import shutil

import pytest
from support.commands import get, wait_for
from support.internet import FAR, Internet, RootThere

from vmctl.stacks import record

pytestmark = pytest.mark.timeout(900)
FILES = os.path.join(os.path.dirname(__file__), "data", "compose")


@pytest.fixture(scope="module")
def internet():
    with Internet() as internet:
        yield internet


@pytest.fixture
def here(own_store, internet, tmp_path):
    """A caller on a host whose ports are free, in a folder with the files; what a test starts is removed."""
    shutil.copytree(FILES, tmp_path / "files")
    caller = RootThere(str(tmp_path / "files"), internet)
    yield caller
    caller.vmctl("down", "--all")
    for name in record.names():
        caller.vmctl("down", "-v", name)


def page(here, port, path="/"):
    """Return (status, body) of what a browser on the host gets, as soon as there is an answer."""

    def ask():
        try:
            return here.internet.host.inside(lambda: get(port, path))
        except OSError:
            return None

    return wait_for(ask)


def printed(here, name, lines):
    """Return the output of an instance once it has that many lines."""
    return wait_for(lambda: (found := here.ok("logs", name).splitlines()) and len(found) >= lines and found)


def test_images_are_built_and_variables_come_from_a_file(here):
    here.ok("up", "build.yaml")
    assert printed(here, "build-show", 6) == [
        "COLOUR=blue", "EMPTY=", "LOCAL=1", "QUOTED=two words", "SHOWN=yes", "SINGLE=$NOT filled in",
    ]  # fmt: skip
    wait_for(lambda: here.inspect("build-show")["exit_code"] == 0)
    assert page(here, 18081) == (200, "<h1>A page for readers</h1>\n")
    assert page(here, 18083)[1] == "<h1>A page for nobody</h1>\n"
    assert page(here, 18082, "/tested") == (200, "ok\n")
    assert "WHO" in page(here, 18081, "/raw.html")[1]


def test_a_service_sees_its_limits(here):
    here.ok("up", "limits.yaml")
    lines = printed(here, "limits-box", 10)
    assert lines[:8] == ["1000", "/tmp", "box", "1000", "512", "read-only", "8", "32"]
    assert lines[8:] == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
    here.ok("stop", "limits-box")
    assert "asked to stop" in here.ok("logs", "limits-box")
    for name in ("limits-box", "limits-old"):
        asked = here.inspect(name)["limits"]["granted"]
        assert (asked["cpus"], asked["memory_bytes"], asked["pids"]) == (0.5, 64 << 20, 50)
        assert here.inspect(name)["workload"]["labels"]["org.example.owner"] == "somebody"
    refused = here.vmctl("up", "--mode", "vm", "limits.yaml")
    assert refused.code == 125
    assert "limits.yaml:16: service box: cap_drop: capabilities are not dropped in a guest" in refused.err


def test_every_form_of_a_mount_and_a_port(here):
    here.ok("up", "mounts.yaml")
    shown = "\n".join(printed(here, "mounts-files", 6))
    for text in ("<h1>A page for WHO</h1>", "not-a-real-secret", "level = info", "/anonymous", "/cache"):
        assert text in shown
    assert here.vmctl("exec", "mounts-ports", "--", "touch", "/shared/x").code != 0
    assert (
        here.ok("exec", "mounts-ports", "--", "cat", "/shared/file", "/run/secrets/other")
        == "made\nnot-a-real-secret\n"
    )
    assert "secret" not in here.ok("exec", "mounts-ports", "--", "env")
    for port in (18091, 18093):
        assert page(here, port, "/file") == (200, "made\n")
    assert "18090" in here.internet.host.run("ss", "-uln")
    assert sorted(here.ok("volume", "ls", "-q").split())[-2:] == ["mounts_shared", "wild-cache"]


def test_what_is_said_once_is_used_often(here):
    env = {"WILD_TOKEN": "abc"}
    assert "give a token" in here.refused("up", "reuse.yaml")
    here.ok("up", "reuse.yaml", env=env)
    for name, level in (("a", "info"), ("b", "debug")):
        assert printed(here, f"wildreuse-worker-{name}", 1) == [
            f"role={name} level={level} port=7000 token=abc home=$HOME price=$5 pid=1-is-sh nested=fallback set=there "
            "empty=[] plus=[]"
        ]
    here.ok("up", "reuse.yaml", "--profile", "tools", env=env)
    assert printed(here, "wildreuse-tool", 1) == ["WILD_TOKEN=abc"]
    assert printed(here, "wildreuse-flaky", 3) == ["try", "try", "try"]
    wait_for(lambda: here.inspect("wildreuse-flaky")["status"] == "exited")
    assert here.ok("logs", "wildreuse-flaky") == "try\ntry\ntry\n"


def test_who_reaches_whom(here):
    here.ok("up", "networks.yaml")

    def gets(name, where):
        """Return what an instance gets from there, or why it gets nothing."""
        return here.vmctl("exec", name, "--", "sh", "-c", f"timeout 5 wget -qO- http://{where}:8000/ 2>&1").out

    for where in ("app", "app.lan", "10.88.7.10"):
        assert wait_for(lambda where=where: gets("wild-edge", where) == "app\n")
    for where in ("store", "records"):
        assert wait_for(lambda where=where: "404" in gets("wildnet-app", where))  # it answers that it has no page
    address = here.inspect("wildnet-store")["address"]
    for where in ("store", address):
        assert "404" not in gets("wild-edge", where)
    assert gets("wild-edge", FAR) == f"from {FAR}\n"
    assert "from" not in gets("wildnet-store", FAR)
    assert here.ok("exec", "wildnet-alone", "--", "ls", "/sys/class/net") == "lo\n"
    assert page(here, 18084) == (200, "edge\n")
    assert "192.0.2.7" in here.ok("exec", "wild-edge", "--", "grep", "outside.example.test", "/etc/hosts")


@pytest.fixture
def stand_ins(here):
    """Images under the names that the files use."""
    names = {"redis:alpine": "base", "postgres:9.4": "base", "postgres": "base", "nginx": "base"}
    for name, stage in {**names, "mariadb:10.6.4-focal": "mariadb"}.items():
        here.ok("image", "build", "-q", "--target", stage, "-t", name, "stand")
    yield
    here.vmctl("down", "--all")
    for name in (*names, "mariadb:10.6.4-focal"):
        here.ok("image", "rm", name)


def asks(here, name, where):
    """Return what an instance gets from another one, or why it gets nothing."""
    return here.vmctl("exec", name, "--", "sh", "-c", f"timeout 5 wget -qO- http://{where}/ 2>&1").out


def test_three_files_of_usual_shapes_with_images_that_stand_in(here, stand_ins):
    result = here.vmctl("up", "voting.yaml")
    assert result.code == 0, result
    assert "version: it has no effect" in result.err
    for port, name in ((5000, "ballot"), (5001, "tally")):
        assert page(here, port) == (200, f"{name}\n")
    for name in ("redis", "db"):
        assert wait_for(lambda name=name: asks(here, "voting-worker", name) == "\n")
    assert here.ok("exec", "voting-ballot", "--", "cat", "/app/secret.txt") == "not-a-real-secret\n"
    assert here.ok("port", "redis", "6379").startswith("127.0.0.1:")
    assert printed(here, "voting-tally", 1) == ["/bin/nodemon --debug server.js"]
    here.ok("down", "-v", "voting")

    here.ok("up", "proxy.yaml")
    assert here.inspect("proxy-db")["health"] == "healthy"
    for name in ("proxy-backend", "proxy-db"):
        assert here.ok("exec", name, "--", "cat", "/run/secrets/db-password") == "not-a-real-secret\n"
    assert here.ok("exec", "proxy-db", "--", "id", "-un") == "postgres\n"
    assert here.vmctl("exec", "proxy-proxy", "--", "sh", "-c", "echo >>/etc/nginx/conf.d/default.conf").code != 0
    assert page(here, 80) == (200, "proxy\n")
    here.ok("down", "-v", "proxy")

    here.ok("up", "frontend.yaml")
    assert page(here, 80) == (200, "backend\n")
    assert page(here, 3000) == (200, "frontend\n")
    assert wait_for(lambda: asks(here, "frontend-backend", "db") == "db\n")
    assert wait_for(lambda: asks(here, "frontend-frontend", "backend:8080") == "backend\n")
    assert "bad address" in asks(here, "frontend-frontend", "db")
    assert printed(here, "frontend-db", 1) == ["/bin/serve --default-authentication-plugin=mysql_native_password"]
    here.ok("down", "-v", "frontend")
