"""The flags of `run` and `exec` that other programs have too, for root and an ordinary user."""

import json
import os
import re

import pytest
from support import others
from support.archives import Layout
from support.commands import refused, wait_for
from support.registries import registry
from support.tars import folder, tar_of

from vmctl.cli.run import FLAGS
from vmctl.spec import flagwords

ENTRYPOINT = """FROM tiny
ENTRYPOINT ["/bin/echo", "got"]
"""
MODES = pytest.mark.parametrize("mode", ["container", "vm"])
PRINT = 'for n in A B C D HOME; do eval "echo $n=[\\${$n-unset}]"; done'


@pytest.fixture
def environment(caller):
    """A file with variables that the caller can read."""
    return caller.write("list.env", "# a comment\n\nA=1 # not a comment\n  B='quoted'\nC\nD\nHOME=/srv\n")


def inherited(caller):
    """Return what has to stay in the environment of this caller's commands."""
    return dict(os.environ) if caller.uid == 0 else {}


def test_variables_from_files_and_of_the_caller(caller, environment):
    given = ("--env-file", environment, "-e", "A=2")
    result = caller.vmctl("run", *given, "tiny", "sh", "-c", PRINT, env={**inherited(caller), "C": "of the caller"})
    assert result.out == "A=[2]\nB=['quoted']\nC=[of the caller]\nD=[unset]\nHOME=[/srv]\n", result.err
    assert "cannot be read: No such file" in caller.refused("run", "--env-file", "/no/such", "tiny", "true")
    assert "not UTF-8 text" in caller.refused("run", "--env-file", "/bin/true", "tiny", "true")


@MODES
def test_detached_with_a_label(caller, mode):
    name = caller.ok("run", "-d", "--mode", mode, "--label", "for=test", "-l", "bare", "tiny", "sleep", "1000").strip()
    try:
        assert caller.ok("ps", "-q", "--filter", "label=for=test", "--filter", f"mode={mode}") == f"{name}\n"
        assert caller.ok("ps", "-q", "--filter", "label=bare", "-f", "status=running") == f"{name}\n"
        for other in ("label=for=other", "label=other", "name=other", "mode=host", "image=other", "status=exited"):
            assert caller.ok("ps", "-a", "-q", "-f", other) == ""
        assert json.loads(caller.ok("inspect", name))[0]["workload"]["labels"] == {"for": "test", "bare": ""}
        assert caller.ok("exec", "-it", "-T", name, "echo", "hi") == "hi\n"
        assert caller.ok("stop", "--all", "-t", "0") == f"{name}\n"
        assert "exited (1" in caller.ok("ps", "-a")
        assert caller.ok("rm", "--all") == f"{name}\n"
    finally:
        caller.vmctl("down", "--all")
    assert caller.ok("ps", "-aq") == ""


@MODES
def test_what_is_refused_before_anything_starts(caller, mode):
    def refused(*words):
        return caller.refused("run", "--mode", mode, *words)

    assert "is for instances in the background" in refused("--restart", "always", "tiny", "true")
    assert "--restart: expected no, always, unless-stopped" in refused("--restart", "never", "tiny", "true")
    assert "cannot run linux/s390x" in refused("--platform", "linux/s390x", "tiny", "true")
    assert "--rm and restart: always exclude each other" in refused("-d", "--rm", "--restart", "always", "tiny", "true")
    assert "--rm and --keep exclude each other" in refused("--rm", "--keep", "tiny", "true")
    assert f"mode {mode}: the file of variables /no/such cannot be read" in refused(
        "--env-file", "/no/such", "tiny", "true"
    )
    assert "hint: `vmctl run tiny -- COMMAND`" in refused("--entrypoint", "", "tiny")
    if mode == "vm":
        assert "hint: use `--network bridge`" in refused("--network", "host", "tiny", "true")
    assert caller.ok("ps", "-aq") == ""


def test_pull(caller, tmp_path_factory):
    there = tmp_path_factory.mktemp("registry")
    with registry(there / "registry") as address:
        layout = Layout()
        layout.add(layout.image(tar_of(folder("etc"), ("etc/one", {}, b"one"))), "1").folder(there / "web")
        others.skopeo("copy", "--dest-tls-verify=false", f"oci:{there}/web:1", f"docker://{address}/web:1")
        conf = caller.write("registries.conf", f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
        there = os.path.join(caller.folder, ".config", "containers")
        os.makedirs(there, exist_ok=True)
        os.rename(conf, os.path.join(there, "registries.conf"))
        env, name = {**inherited(caller), "HOME": caller.folder}, f"{address}/web:1"
        assert "there is no image" in caller.vmctl("run", name, "/x", env=env).err
        for _ in range(2):  # the second time from the store
            result = caller.vmctl("run", "-q", "--pull", "missing", name, "/x", env=env)
            assert (result.code, result.err.count("/x is not in the image")) == (127, 1), result
    assert name in caller.ok("image", "ls", "-q").split()
    assert caller.ok("image", "rm", name) == f"{name}\n"


def test_errors_name_flags():
    def said(text):
        return flagwords.in_flags(text, FLAGS)

    assert said("raise `resources.memory`") == "raise `--memory`"
    assert said("resources.disk: the file system is full") == "--disk: the file system is full"
    assert (
        said("web cannot run here: env_file: /e cannot be read") == "web cannot run here: --env-file: /e cannot be read"
    )
    assert said("its user has no network, use `network: bridge`") == "its user has no network, use `--network bridge`"
    assert (
        said("leave the key `restart` out, or `vm: {kernel: host}`") == "leave `--restart` out, or `vm: {kernel: host}`"
    )


MEMORY = (
    "--tmpfs",
    "/a:size=1m,mode=700,noexec",
    "--tmpfs",
    "/a/b/c",
    "--shm-size",
    "2m",
    "--hostname",
    "other.example",
)
SHOWN = "hostname; stat -c %a /a /a/b/c; grep -E ' (/a|/a/b/c|/dev/shm) ' /proc/mounts; touch /a/x /a/b/c/x; id -u"


@MODES
def test_folders_in_memory_and_the_host_name(caller, mode):
    name, *lines, user = caller.ok("run", "--mode", mode, *MEMORY, "tiny", "sh", "-c", SHOWN).splitlines()
    assert (name, lines[:2], user) == ("other.example", ["700", "1777"], "0")
    mounts = {line.split()[1]: line.split()[2:4] for line in lines[2:]}
    options = {path: set(options.split(",")) for path, (kind, options) in mounts.items() if kind == "tmpfs"}
    assert {"size=1024k", "noexec", "nosuid", "nodev"} <= options["/a"]
    assert {"nosuid", "nodev"} <= options["/a/b/c"]
    assert "noexec" not in options["/a/b/c"]
    assert "size=2048k" in options["/dev/shm"]


def test_ulimits_are_those_of_the_command_and_of_exec(caller):
    limits = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "nproc=-1")
    shown = "ulimit -Sn; ulimit -Hn; ulimit -c"
    assert caller.ok("run", *limits[:4], "tiny", "sh", "-c", shown) == "100\n200\n0\n"
    name = caller.ok("run", "-d", *limits[:4], "tiny", "sleep", "1000").strip()
    try:
        assert caller.ok("exec", name, "--", "sh", "-c", shown) == "100\n200\n0\n"
    finally:
        caller.ok("down", "-t", "0", name)
    hard = int(caller.ok("run", "tiny", "sh", "-c", "ulimit -Hn"))
    result = caller.vmctl("run", "--ulimit", f"nofile=10:{hard + 1}", "tiny", "sh", "-c", "ulimit -Hn")
    if result.code:  # neither root of this host nor a user may raise a hard limit
        assert f"nofile is above the hard limit of this user, {hard}" in result.err
    else:
        assert result.out == f"{hard + 1}\n"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--tmpfs", "run", "expected a folder in memory"),
        ("--tmpfs", "/", "cannot be a folder in memory"),
        ("--tmpfs", "/proc/x", "cannot be a folder in memory"),
        ("--tmpfs", "/a/../b", "without .."),
        ("--tmpfs", "/a:size=1", "at least 4K"),
        ("--tmpfs", "/a:huge=always", "not 'huge=always'"),
        ("--tmpfs", "/a:mode=9", "an octal mode"),
        ("--shm-size", "-1", "expected a size"),
        ("--hostname", "a b", "expected up to 63 letters"),
        ("--hostname", "", "expected up to 63 letters"),
        ("--ulimit", "nofile", "a limit such as"),
        ("--ulimit", "nofiles=1", "by one of the names"),
        ("--ulimit", "nofile=3:2", "not above the hard one"),
        ("--ulimit", "nofile=-1:2", "not above the hard one"),
    ],
)
def test_wrong_values_name_the_flag(own_root, flag, value, message):
    assert re.search(rf"^vmctl: {flag}\S*: .*{re.escape(message)}", refused("run", f"{flag}={value}", "tiny", "true"))


def test_the_same_place_twice(own_root):
    for more in (("--tmpfs", "/a/"), ("-v", "/srv:/a")):
        assert "given twice" in refused("run", "--tmpfs", "/a", *more, "tiny", "true")
    assert "nofile is given twice" in refused("run", "--ulimit", "nofile=1", "--ulimit", "nofile=2", "tiny", "true")


@pytest.mark.parametrize(
    ("mode", "flag", "message"),
    [
        ("host", "--tmpfs=/a", "tmpfs: mode host has no namespaces"),
        ("host", "--shm-size=1m", "--shm-size: mode host has no namespaces"),
        ("host", "--hostname=x", "hostname: mode host has no namespaces"),
        ("vm", "--ulimit=core=0", "vm mode cannot set ulimits yet"),
    ],
)
def test_what_a_mode_cannot_honour(own_root, mode, flag, message):
    network = ("--network", "host") if mode == "host" else ()
    assert message in refused("run", "--mode", mode, *network, flag, "tiny", "true")


def test_a_flag_after_the_image_belongs_to_its_entrypoint(caller):
    for words in (("-it", "sh"), ("--name", "x"), ("-e", "A=1", "sh")):
        assert f"{words[0]} comes after IMAGE" in caller.refused("run", "tiny", *words)
    folder_ = os.path.dirname(caller.write("Dockerfile", ENTRYPOINT))
    caller.ok("build", "-q", "-t", "echoing", folder_)
    assert caller.ok("run", "echoing", "--name", "x", "-it") == "got --name x -it\n"
    assert caller.ok("run", "echoing", "--", "--help") == "got --help\n"
    assert caller.ok("rmi", "echoing") == "echoing\n"
    assert "comes after IMAGE" not in caller.vmctl("run", "tiny", "--", "--name").err


def test_stop_with_another_signal(caller):
    script = "trap 'exit 7' HUP; trap '' TERM; touch /up; while :; do sleep 0.1; done"
    name = caller.ok("run", "-d", "tiny", "sh", "-c", script).strip()
    wait_for(lambda: caller.vmctl("exec", name, "test", "-e", "/up").code == 0)
    assert caller.ok("stop", "-s", "HUP", name) == f"{name}\n"
    assert caller.vmctl("wait", name).out == "7\n"
    assert caller.ok("rm", name) == f"{name}\n"


@pytest.mark.parametrize("more", [(), ("--tmpfs", "/a"), ("--ulimit", "core=0")])
def test_a_trace_shows_how_each_kind_of_start_ends(caller, more):
    """What only some starts need is imported before the root is entered: inside, a path is one of the image."""
    result = caller.vmctl("--trace", "-", "run", *more, "tiny", "true")
    assert (result.code, "exec setpriv" in result.err) == (0, True), result.err
