"""`vmctl cp` against a hostile instance and a hostile tar: only what was named is read or written."""

import os
import secrets
import subprocess

import pytest
from support.attack_table import callers, modes
from support.exchange import exchanged_all_the_time
from support.tars import tar_of

pytestmark = pytest.mark.timeout(900)
EXCHANGER = r"""
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        for (;;)
            if (renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE)) { perror("renameat2"); return 1; }
    }"""


@pytest.fixture
def folder(caller):
    """An empty folder of the caller."""
    path = os.path.join(caller.folder, f"copy-{secrets.token_hex(4)}")
    os.mkdir(path)
    os.chown(path, caller.uid, caller.uid)
    return path


def contents(folder):
    """Return the content of all files below a folder."""
    found = b""
    for above, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(above, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found += file.read()
    return found


@pytest.mark.attack("exchanges a folder and a link to the host's files while `cp` reads and writes there")
@modes("container", "host")
def test_exchanged_links_inside(caller, cell, folder, canary):
    program = cell.compiled(EXCHANGER)
    secret = os.path.dirname(canary.path)
    setup = f"""
        mkdir -p /srv/d; for i in $(seq 200); do echo harmless > /srv/d/$i; done
        ln -sfn {secret} /srv/l; ln -sfn / /srv/up
        {program} /srv/d /srv/l >/dev/null 2>&1 </dev/null &
        echo $! > /tmp/exchanger
    """
    assert cell.shell(setup).code == 0
    put = os.path.join(folder, "put")
    os.mkdir(put)
    with open(os.path.join(put, os.path.basename(canary.path)), "w", encoding="utf-8") as file:
        file.write("overwritten")
    subprocess.run(["chown", "-R", f"{caller.uid}:{caller.uid}", put], check=True)
    copied = 0
    try:
        for number in range(6):
            copied += caller.vmctl("cp", f"{cell.name}:/srv", os.path.join(folder, f"out{number}")).code == 0
            caller.vmctl("cp", f"{cell.name}:/srv/d/.", os.path.join(folder, f"in{number}"))
            caller.vmctl("cp", os.path.join(put, "."), f"{cell.name}:/srv/d")
        assert cell.shell("kill -0 $(cat /tmp/exchanger)").code == 0  # it has exchanged them all the time
    finally:
        cell.shell("kill -9 $(cat /tmp/exchanger); rm -rf /srv/*")
    assert copied
    canary.check(contents(folder).replace(b"overwritten", b""))


@pytest.mark.attack("exchanges a folder of the host that `cp` reads with a link to root's files")
@modes("container")
@callers("root")
def test_exchanged_links_outside(caller, cell, folder, canary, tmp_path):
    data, secret = os.path.join(folder, "data"), tmp_path / "secret"
    secret.mkdir(mode=0o700)
    os.mkdir(data)
    for number in range(300):
        with open(os.path.join(data, str(number)), "w", encoding="utf-8") as file:
            file.write("harmless")
        (secret / str(number)).write_text(canary.secret)
    os.symlink(secret, os.path.join(folder, "link"))
    for _ in range(8):
        cell.shell("mkdir -p /srv; rm -rf /srv/x")
        with exchanged_all_the_time(data, os.path.join(folder, "link")):
            caller.ok("cp", folder, f"{cell.name}:/srv/x")
        canary.check(cell.shell("cat /srv/x/*/* 2>/dev/null").out)


HOSTILE = {
    "parents": [("../escaped", {}, b"x")],
    "inner": [("a/../../escaped", {}, b"x")],
    "absolute": [("/escaped", {}, b"x")],
    "link": [("a", {"type": b"2", "linkname": "{outside}"}, b""), ("a/escaped", {}, b"x")],
    "hard": [("a", {"type": b"1", "linkname": "{secret}"}, b"")],
    "hard-up": [("a", {"type": b"1", "linkname": "../../etc/passwd"}, b"")],
    "device": [("escaped", {"type": b"4", "devmajor": 8}, b"")],
    "fifo": [("f", {"type": b"6"}, b""), ("ok", {}, b"x")],
    "setuid": [("s", {"mode": 0o6755}, b"x")],
}


@pytest.mark.attack("answers `cp` with a tar that leads out of the folder, or has devices, FIFOs, setuid programs")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tar_on_the_host(tmp_path, kind):
    """The reader itself: what arrives is not made by our writer, as from a guest that has been taken over."""
    from vmctl.copying.place import Target, receive
    from vmctl.errors import VmctlError

    outside, target = tmp_path / "outside", tmp_path / "in" / "here"
    outside.mkdir()
    target.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    names = {"{outside}": str(outside), "{secret}": str(tmp_path / "secret")}
    entries = [("./", {"type": b"5", "mode": 0o755}, b"")]
    for name, attributes, data in HOSTILE[kind]:
        link = attributes.get("linkname")
        attributes = {**attributes, "linkname": names.get(link, link)} if link else attributes
        entries.append((name, {"mode": 0o644, **attributes}, data))
    stream = os.memfd_create("tar")
    os.write(stream, tar_of(*entries))
    os.lseek(stream, 0, os.SEEK_SET)
    left_out = []
    try:
        left_out = receive(
            lambda count: os.read(stream, count),
            Target(str(target), "x", contents=True),
            lambda path: os.open(path, os.O_RDONLY | os.O_DIRECTORY),
        )
    except VmctlError as error:
        left_out = [str(error)]
    assert not os.listdir(outside)
    assert sorted(os.listdir(tmp_path)) == ["in", "outside", "secret"]
    assert os.listdir(tmp_path / "in") == ["here"]
    assert os.stat(tmp_path / "secret").st_nlink == 1
    for above, folders, files in os.walk(target):
        for name in (*folders, *files):
            mode = os.lstat(os.path.join(above, name)).st_mode
            assert mode & 0o170000 in (0o100000, 0o040000, 0o120000)
            assert mode & 0o6000 == 0 or mode & 0o170000 == 0o120000
    if kind == "absolute":
        assert (target / "escaped").read_bytes() == b"x"
    elif kind == "setuid":
        assert (target / "s").stat().st_mode & 0o7777 == 0o755
    else:
        assert left_out


@pytest.mark.attack("offers FIFOs, devices, setuid programs and a tree without an end to `cp`")
@modes("container", "vm")
def test_special_files(caller, cell, folder):
    cell.shell(
        """
        rm -rf /srv/*; mkdir /srv/x; cd /srv/x; mkfifo f; mknod d c 1 5; mknod b b 7 0; cp /bin/busybox s; chmod 6755 s
        ln -s / up; ln -s /proc/self/root root
        i=0; while [ $i -lt 300 ]; do mkdir d$i && cd d$i; i=$((i + 1)); done
        """
    )
    result = caller.vmctl("cp", f"{cell.name}:/srv/x", os.path.join(folder, "x"), timeout_s=120)
    assert result.code == 0, result
    found = os.listdir(os.path.join(folder, "x"))
    assert not {"f", "d", "b"} & set(found)
    status = os.lstat(os.path.join(folder, "x", "s"))
    assert (status.st_mode & 0o7777, status.st_uid) == (0o755, caller.uid)
    assert os.readlink(os.path.join(folder, "x", "up")) == "/"
    for path in ("/srv/x/f", "/proc/kmsg", "/dev/zero"):
        result = caller.vmctl("cp", f"{cell.name}:{path}", os.path.join(folder, "special"), timeout_s=120)
        assert result.code == 125, (path, result)
        assert not os.path.lexists(os.path.join(folder, "special")), path


@pytest.mark.attack("a tar of the user that leads out of its target, into a stopped container")
@modes("container")
def test_a_stopped_container_is_no_way_out(caller, cell, folder, canary):
    name = f"still-{caller.name}"
    links = f"ln -s {os.path.dirname(canary.path)} /l; ln -s / /etc/up"
    caller.ok("run", "--keep", "--name", name, "tiny", "--", "sh", "-c", links)
    try:
        put = os.path.join(folder, os.path.basename(canary.path))
        with open(put, "w", encoding="utf-8") as file:
            file.write("overwritten")
        os.chown(put, caller.uid, caller.uid)
        caller.vmctl("cp", put, f"{name}:/l/")
        caller.vmctl("cp", put, f"{name}:/etc/up{os.path.dirname(canary.path)}/")
        result = caller.vmctl("cp", f"{name}:/l/.", os.path.join(folder, "out"))
        canary.check(contents(os.path.join(folder, "out")), result.out)
    finally:
        caller.vmctl("rm", "-f", name)
