"""Images of Debian packages: what is in them, the same every time, and what they are for."""

import glob
import os
import re
import shutil
import signal

import pytest
from support.commands import free_port, ok, start, vmctl, wait_for
from support.host_state import files, host_state, left_behind, mounts

from images.layer import lookup
from images.recipes import debian
from images.recipes.steps import Packages
from images.store import shipped as recipes
from images.store import store
from images.store.staging import staging
from vmctl.instances import instance

pytestmark = [pytest.mark.usefixtures("own_store"), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def python(own_store, shipped):
    return shipped.bring("python")


@pytest.fixture
def view(python):
    with lookup.View(python.layers) as view:
        yield view


def test_python_runs(python):
    said = ok("run", "python", "--", "python3", "-c", "import json, ssl, sqlite3, sys; print(sys.version_info[0])")
    assert said == "3\n"
    assert ok("run", "python", stdin="print(6 * 7)") == "42\n"
    assert sum(os.stat(layer.path).st_size for layer in python.layers) < 120 << 20
    script = "python --version && pip --version && python -m venv /v && /v/bin/pip --version"
    assert "/v/lib/python3" in ok("run", "python", "--", "sh", "-c", script)


def test_nothing_of_the_build_or_the_host_is_in_it(view):
    def names(path):
        return [os.fsdecode(name) for name in view.names(path)]

    for path in ("/dev", "/proc", "/sys", "/run", "/tmp", "/var/cache/apt", "/var/lib/apt/lists", "/usr/share/man"):
        assert names(path) == [], path
    for path in ("/etc/hostname", "/etc/resolv.conf", "/etc/shadow-", "/var/cache/ldconfig/aux-cache"):
        assert view.find(path) is None, path
    assert not [name for name in names("/var/log") if name.endswith(".log")]
    assert view.find("/etc/machine-id").size_bytes == 0
    assert b"localhost" in b"".join(view.content("/etc/hosts"))
    assert names("/usr/share/doc/python3-minimal") == ["copyright"]
    assert view.find("/usr/share/doc/usrmerge") is None  # a Perl program that has nothing to do here


def test_no_time_is_that_of_the_build(python, view):
    waiting, newest_ns = ["/"], 0
    while waiting:
        folder = waiting.pop()
        for name in view.names(folder):
            path = os.path.join(folder, os.fsdecode(name))
            node = view.find(path, follow=False)
            newest_ns = max(newest_ns, node.attributes.mtime_ns)
            if node.attributes.mode & 0o170000 == 0o040000:
                waiting.append(path)
    assert store.timestamp(newest_ns // 10**9) == python.created


def test_no_password_was_changed_on_the_day_of_the_build():
    lines = b"root:*:20000:0:99999:7:::\nnobody:!::0:99999:7:::\nodd\n"
    assert debian.without_days(iter([lines]), 86400 * 7) == lines.replace(b"20000", b"7")


def test_compiled_python_is_valid(python):
    """A .pyc holds the time of its source: one that no longer fits is compiled again at each start."""
    script = "import json, sys; print(json.__cached__); sys.dont_write_bytecode = False"
    said = ok("run", "python", "--", "python3", "-v", "-c", script)
    cached = said.strip()
    assert cached.endswith(".pyc")
    loud = vmctl("run", "python", "--", "python3", "-v", "-c", "import json")
    assert re.search(r"matches .*/json/__init__\.py", loud.err)
    assert "stale" not in loud.err


def test_the_same_packages_give_the_same_digest(python, tmp_path, monkeypatch):
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "other"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # what the packages' scripts must not hear of
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.makedirs(store.path())
    before = mounts(), files()
    assert ok("image", "build", "--no-cache", "--quiet", "python", timeout_s=900) == f"{python.digest}\n"
    assert (mounts(), files()) == before
    assert os.listdir(store.path("stages")) == []
    said = vmctl("image", "build", "python").err
    assert re.search(r"packages of bookworm: .* CACHED$", said, re.MULTILINE)


@pytest.mark.alone
def test_packages_that_cannot_be_had(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "from: {packages: {suite: bookworm, mirrors: ['deb http://127.0.0.1:1/debian bookworm main']}}"
    )
    before = host_state()
    said = vmctl("image", "build", str(tmp_path / "x.yaml"))
    assert said.code == 125
    assert "x.yaml: from: the packages of bookworm could not be installed: Failed to fetch http://127.0" in said.err
    assert "hint: check the names of the packages and the network" in said.err
    assert left_behind(before) == {}
    assert os.listdir(store.path("stages")) == []


@pytest.mark.alone
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_installation_leaves_nothing(tmp_path, signum):
    (tmp_path / "x.yaml").write_text("from: {packages: {suite: bookworm, include: [cpio]}}")
    before = host_state()
    process = start("image", "build", str(tmp_path / "x.yaml"), start_new_session=True)
    wait_for(lambda: glob.glob(store.path("stages/*/mmdebstrap/mmdebstrap.*/usr")))
    process.send_signal(signum)
    process.communicate()
    assert process.returncode == (130 if signum == signal.SIGINT else -signum)
    wait_for(nothing_is_staged)
    assert left_behind(before) == {}


def nothing_is_staged():
    """The next command that makes something takes a killed one's leftovers away, once mmdebstrap is done with them."""
    with staging():
        pass
    return os.listdir(store.path("stages")) == []


def test_without_mmdebstrap(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(programs))
    if any(os.path.exists(f"{folder}/mmdebstrap") for folder in ("/sbin", "/usr/sbin", "/usr/local/sbin")):
        pytest.fail("mmdebstrap is where this test does not expect it")
    (tmp_path / "x.yaml").write_text("from: {packages: {suite: bookworm}}")
    said = vmctl("image", "build", "--no-cache", str(tmp_path / "x.yaml"))
    assert (said.code, said.out) == (125, "")
    assert "apt install mmdebstrap" in said.err


def test_the_sources_are_the_hosts_own_where_it_has_the_suite():
    base = Packages("bookworm", components=("main", "contrib"))
    for line in debian.sources(base):
        assert re.fullmatch(r"deb \S+ bookworm(-updates|-security)? main contrib", line)
    assert debian.sources(Packages("no-such-suite")) == []
    assert debian.sources(base._replace(mirrors=("deb x y z",))) == ["deb x y z"]


@pytest.fixture(scope="module")
def postgres(own_store, shipped, tmp_path_factory):
    shipped.bring("postgres")
    path = tmp_path_factory.mktemp("postgres") / "postgres.yaml"
    shutil.copy(os.path.join(os.path.dirname(recipes.path("x")), "../workloads/postgres.yaml"), path)
    path.write_text(path.read_text().replace('"5432:5432"', f'"{free_port()}:5432"'))
    yield str(path)
    vmctl("down", "postgres")


@pytest.mark.parametrize("mode", ["container", "vm"])
def test_a_database_serves(postgres, mode):
    def query(text):
        return ok("exec", "postgres", "--", "psql", "-Atc", text)

    ok("up", "--mode", mode, postgres)
    ok("exec", "postgres", "--", "psql", "-qc", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    assert query("SELECT sum(n), current_user FROM t") == "500500|postgres\n"
    assert query("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'") == "0\n"
    network = query("SELECT auth_method FROM pg_hba_file_rules WHERE address = 'all'")
    assert network == "scram-sha-256\n"
    ok("stop", "postgres")
    assert ok("wait", "postgres") == "0\n"
    assert wait_for(lambda: "database system is shut down" in vmctl("logs", "postgres").err)
    ok("rm", "postgres")
    assert instance.names() == []
