"""An image's /etc/passwd and /etc/group: what they make the host do, and whom they make root."""

import resource
import subprocess

import pytest
from support.commands import VMCTL, ok, refused, vmctl, wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("own_store")]

TIMEOUT_S = 120
MEMORY_BYTES = 1 << 30
# name -> commands that replace /etc/passwd
HOSTILE = {
    "fifo": "rm /etc/passwd && mkfifo /etc/passwd",
    "zero": "ln -sf /dev/zero /etc/passwd",
    "pipe": "ln -sf /proc/self/fd/3 /etc/passwd",
    "kernel": "ln -sf /proc/kmsg /etc/passwd",
    "folder": "rm /etc/passwd && mkdir /etc/passwd",
    "large": "head -c 3000000 /dev/zero >/etc/passwd",
}
# a number in the table that would make its user root
NUMBERS = r"1000:x:0:0::/:/bin/sh\nroot:x:2000:2000::/:/bin/sh\nbig:x:4294967295:0::/:/bin/sh\nneg:x:-1:0::/:/bin/sh\n"


@pytest.fixture(scope="module")
def image(own_store, tmp_path_factory):
    """A function that returns the name of an image on which a command was run."""

    def make(name, command):
        folder = tmp_path_factory.mktemp(name)
        (folder / "Dockerfile").write_text(f"FROM tiny\nRUN {command}\n")
        ok("image", "build", "-q", "-t", name, str(folder))
        return name

    return make


def limited(*words):
    """Run vmctl with little memory, which it has to do with; return (code, output)."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))  # noqa: E731
    done = subprocess.run([VMCTL, *words], capture_output=True, text=True, timeout=TIMEOUT_S, preexec_fn=limit)
    return done.returncode, done.stderr


@pytest.mark.attack(
    "blocks `run` for ever, or takes all memory of the host, by an /etc/passwd that is not an ordinary file",
    mode="container",
    who="root",
)
@pytest.mark.parametrize("kind", HOSTILE)
def test_passwd_is_no_file(kind, image):
    for user in ((), ("-u", "nobody")):
        code, error = limited("run", "--network", "none", *user, image(kind, HOSTILE[kind]), "--", "true")
        assert code == 125
        assert "/etc/passwd" in error


@pytest.mark.attack(
    "blocks `exec` for ever by an /etc/passwd or /etc/group that it has replaced", mode="container", who="root"
)
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("table", ["passwd", "group"])
def test_passwd_is_replaced(kind, table, tmp_path):
    (tmp_path / "victim.yaml").write_text("image: tiny\nnetwork: none\ncommand: [sleep, '1000']\n")
    ok("up", "-q", str(tmp_path / "victim.yaml"))
    try:
        ok("exec", "victim", "--", "sh", "-c", HOSTILE[kind].replace("passwd", table))
        user = {"passwd": "nobody", "group": "0:nogroup"}[table]
        code, error = limited("exec", "-u", user, "victim", "--", "true")
        assert code == 125
        assert f"/etc/{table}" in error
    finally:
        vmctl("rm", "-f", "victim")


@pytest.mark.attack(
    "becomes root by a user or group id that means `as before` to the kernel", mode="container, vm", who="root"
)
@pytest.mark.parametrize("kind", ["container", "vm"])
@pytest.mark.parametrize("user", ["4294967295", "1000:4294967295", "4294967296", "2147483648", "9" * 400])
def test_id_that_changes_nothing(kind, user):
    error = refused("run", "--mode", kind, "-u", user, "tiny", "--", "id")
    assert "from 0 to 2147483647" in error


@pytest.mark.attack(
    "gives the id in the caller's command another meaning by a name in /etc/passwd", mode="container, vm", who="root"
)
@pytest.mark.parametrize("kind", ["container", "vm"])
def test_number_that_is_a_name(kind, image, tmp_path):
    name = image("numbers", f"printf '{NUMBERS}' >>/etc/passwd; echo 1000:x:0: >>/etc/group")
    (tmp_path / "cell.yaml").write_text(f"image: {name}\ncommand: [sleep, '1000']\nuser: '1000'\n")
    ok("up", "-q", "--mode", kind, str(tmp_path / "cell.yaml"))
    try:
        wait_for(lambda: vmctl("exec", "cell", "--", "true").code == 0)  # on a busy host sshd is late
        for user, ids in (
            ("1000", "uid=1000 gid=0"),
            ("1000:1000", "uid=1000 gid=1000"),
            ("2000", "uid=2000 gid=2000"),
        ):
            found = ok("exec", "-u", user, "cell", "--", "sh", "-c", "echo uid=$(id -u) gid=$(id -g)").strip()
            assert found == ids, user
        assert ok("exec", "cell", "--", "id", "-u").strip() == "1000"
        for user in ("big", "4294967295"):
            seen = vmctl("exec", "-u", user, "cell", "--", "id")
            assert (seen.code, seen.out) == (125, "")
    finally:
        vmctl("rm", "-f", "cell")


@pytest.mark.parametrize(
    "line",
    [
        "USER 4294967295",
        "USER 1:4294967295",
        "COPY --chown=4294967295 Dockerfile /x",
        "COPY --chown=0:4294967295 Dockerfile /x",
    ],
)
def test_impossible_ids_in_a_build(line, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM tiny\n{line}\n")
    assert "from 0 to 2147483647" in refused("image", "build", "-q", "-t", "none", str(tmp_path))


def test_impossible_user_in_a_file(tmp_path):
    (tmp_path / "w.yaml").write_text("image: tiny\nuser: '4294967295'\n")
    assert "from 0 to 2147483647" in refused("spec", "check", str(tmp_path / "w.yaml"))
