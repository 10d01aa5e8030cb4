"""Volumes of guests, by virtiofs: one guest for what it sees, another one for its ends."""

import json
import os
import signal
import socket
import stat
import textwrap

import pytest
from support.attacks import Caller, Cell
from support.commands import inspect, ok, refused, start, vmctl, wait_for

from vmctl import engine, footprint
from vmctl.instances import instance
from vmctl.linux import processes
from vmctl.linux.cgroups import Cgroup
from vmctl.spec.workload import Volume, Workload
from vmctl.volumes import store
from vmm import domain
from vmm.backend import VmBackend
from vmm.volumes import server

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of the host with a file of another user, and next to it a single file."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "data").mkdir()
    (folder / "data/given").write_text("given\n")
    os.chown(folder / "data/given", 5, 6)
    (folder / "single.conf").write_text("single\n")
    (folder / "shared.conf").write_text("before\n")
    return folder


@pytest.fixture(scope="module")
def guest(guest_root, tmp_path_factory, folder):
    """A guest with volumes of each kind, also below a folder in memory and below each other."""
    volumes = [
        f"{folder}/data:/mnt/deep/data",
        f"{folder}/data:/mnt/deep/data/read:ro",
        f"{folder}/single.conf:/etc/new/single.conf:ro",
        f"{folder}/shared.conf:/etc/group",
        "named:/named",
        "/etc/new/own",
        f"{folder}/data:/memory/a b",
    ]
    (folder / "data/read").mkdir()
    cell = Cell(Caller(str(tmp_path_factory.mktemp("caller"))), "vm", volumes=volumes, tmpfs=["/memory"])
    yield cell
    cell.end()


def said(guest, script):
    result = guest.shell(script)
    assert result.code == 0, result
    return result.out


def test_changes_are_seen_at_once_in_both_directions(guest, folder):
    data = folder / "data"
    (data / "from-host").write_text("1\n")
    assert said(guest, "cd /mnt/deep/data; cat from-host given; echo 2 >>from-host; echo 3 >from-guest") == "1\ngiven\n"
    assert (data / "from-host").read_text() == "1\n2\n"
    assert (data / "from-guest").read_text() == "3\n"
    (data / "from-guest").unlink()
    os.rename(data / "from-host", data / "renamed")
    assert said(guest, "cd '/memory/a b'; ls; ln renamed hard; mv renamed again; rm hard").split() == [
        *("given", "read", "renamed")
    ]
    assert sorted(os.listdir(data)) == ["again", "given", "read"]
    (data / "again").unlink()


def test_owners_are_the_same_on_both_sides(guest, folder):
    data = folder / "data"
    script = "cd /mnt/deep/data; stat -c %u:%g given; echo >owned; chown 1000:1001 owned; chmod 4711 owned"
    result = guest.shell(f"{script}; chown 70000 given")
    assert result.out == "5:6\n"
    assert result.code != 0  # an id beyond those of an instance, as in a container
    found = os.stat(data / "owned")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 1001, 0o4711)
    said(guest, "su -s /bin/sh nobody -c 'echo mine >/named/no' 2>/dev/null; chmod 777 /named")
    named = store.data("named")
    assert os.listdir(named) == []
    assert guest.exec("sh", "-c", "echo mine >/named/yes", user="7:8").code == 0
    assert (os.stat(f"{named}/yes").st_uid, os.stat(f"{named}/yes").st_gid) == (7, 8)
    assert guest.exec("cat", "/mnt/deep/data/secret", user="7:8").code != 0
    (data / "owned").unlink()


def test_a_read_only_volume_stays_so(guest, folder):
    """Independent of the guest's own mount: the file server has a read-only one."""
    script = "cd /mnt/deep/data/read; cat given; touch a; mount -o remount,rw /mnt/deep/data/read; touch b"
    result = guest.shell(f"{script}; rm given; chmod 777 .")
    assert result.out == "given\n"
    assert result.err.count("Read-only file system") >= 3, result
    assert guest.shell("echo x >/etc/new/single.conf").code != 0
    assert (folder / "single.conf").read_text() == "single\n"
    assert sorted(os.listdir(folder / "data")) == ["given", "read"]


def test_single_files(guest, folder):
    assert said(guest, "cat /etc/new/single.conf /etc/group; ls /etc/new; echo after >/etc/group") == (
        "single\nbefore\nown\nsingle.conf\n"
    )
    assert (folder / "shared.conf").read_text() == "after\n"
    text = refused("suspend", guest.name)
    assert "QEMU cannot save the device of the volume /mnt/deep/data" in text
    assert f"`vmctl pause {guest.name}`" in text


def test_a_volume_without_a_name_is_of_the_instance(guest):
    said(guest, "echo mine >/etc/new/own/file")
    inst = instance.load(guest.name)
    with open(inst.path("volumes/5/data/file")) as file:
        assert file.read() == "mine\n"


ABILITIES = r"""
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/file.h>
    #include <sys/inotify.h>
    #include <sys/mman.h>
    #include <sys/xattr.h>
    #include <unistd.h>
    static void say(const char *name, int result) { printf("%s: %s\n", name, result < 0 ? strerror(errno) : "ok"); }
    int main(int argc, char **argv) {
        chdir(argv[1]);
        int fd = open("file", O_RDWR | O_CREAT, 0600);
        ftruncate(fd, 4096);
        char *map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        say("shared mmap", map == MAP_FAILED ? -1 : 0);
        if (map != MAP_FAILED) { strcpy(map, "mapped"); msync(map, 4096, MS_SYNC); }
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        say("fcntl lock", fcntl(fd, F_SETLK, &lock));
        int other = open("file", O_RDWR);
        say("flock", flock(fd, LOCK_EX));
        say("second flock", flock(other, LOCK_EX | LOCK_NB));
        say("O_TMPFILE", open(".", O_TMPFILE | O_RDWR, 0600));
        say("user xattr", fsetxattr(fd, "user.note", "x", 1, 0));
        say("trusted xattr", fsetxattr(fd, "trusted.note", "x", 1, 0));
        say("fallocate", fallocate(fd, 0, 0, 1 << 20));
        say("O_DIRECT", open("file", O_RDONLY | O_DIRECT));
        say("exchange", syscall(316, AT_FDCWD, "file", AT_FDCWD, "given", 2));
        say("exchange back", syscall(316, AT_FDCWD, "file", AT_FDCWD, "given", 2));
        unlink("file");
        say("unlinked", write(fd, "x", 1));
        int events = inotify_init();
        inotify_add_watch(events, ".", IN_CREATE);
        struct pollfd poller = {.fd = events, .events = POLLIN};
        close(open("own", O_CREAT, 0600));
        say("own event", poll(&poller, 1, 10000) == 1 ? 0 : -1);
        char buffer[4096];
        read(events, buffer, sizeof buffer);
        printf("waiting\n");
        fflush(stdout);
        while (access("of-host", F_OK)) usleep(10000);
        printf("event of the host: %s\n", poll(&poller, 1, 1000) == 1 ? "seen" : "not seen");
        return 0;
    }"""


def test_what_programs_can_do_in_a_volume(guest, folder):
    """As docs/volumes.md lists it, with what differs from a container: events of the host, O_TMPFILE, trusted.*."""
    program = guest.compiled(textwrap.dedent(ABILITIES))
    with start("exec", guest.name, "--", program, "/mnt/deep/data", text=True) as process:
        seen = []
        for line in process.stdout:
            seen.append(line.rstrip("\n"))
            if line == "waiting\n":
                (folder / "data/of-host").write_text("")
    found = dict(line.split(": ", 1) for line in seen if ": " in line)
    differs = {name: text for name, text in found.items() if text != "ok"}
    assert differs == {
        "second flock": "Resource temporarily unavailable",
        "O_TMPFILE": "Operation not supported",
        "trusted xattr": "Operation not permitted",
        "event of the host": "not seen",
    }, found
    assert found.keys() >= {"shared mmap", "fcntl lock", "user xattr", "O_DIRECT", "exchange", "unlinked", "own event"}
    for name in ("own", "of-host"):
        (folder / "data" / name).unlink()


def test_the_file_servers_are_counted_and_confined(guest):
    inst = instance.load(guest.name)
    servers = servers_of(inst)
    assert len(servers) == 7
    seen = footprint.footprint(inst)
    assert seen.pss_by_role["virtiofsd"] > 0
    assert seen.vmm_bytes is not None
    with open(f"/proc/{inst.state.pid}/maps") as file:
        assert "memfd:" in file.read()
    assert all(Cgroup(inst.cgroup).has(pid) for pid in servers)
    assert "virtiofsd" in json.dumps(inspect(guest.name))


def servers_of(inst):
    return footprint.helpers(inst.journal).get(server.ROLE, [])


def test_a_guest_without_volumes_has_no_shared_memory():
    plain = domain.Machine("w", "u", "tcg", "/q", 1, 1 << 28, (), "/d", "/s", "/c", (), ("c", "/f"))
    assert "memoryBacking" not in domain.domain_xml(plain)
    assert "memoryBacking" in domain.domain_xml(plain._replace(volumes=(("volume0", "/v"),)))


# Ends and starts


def test_the_file_server_ends_with_the_guest_and_starts_with_it_again(guest_root, tmp_path):
    (tmp_path / "data").mkdir()
    flags = ("--mode", "vm", "--network", "none", "--name", "ends", "-v", f"{tmp_path}/data:/data", "-v", "kept:/kept")
    ok("run", "-d", *flags, "tiny", "--", "sleep", "1000")
    try:
        inst = instance.load("ends")
        servers = servers_of(inst)
        assert len(servers) == 2
        ok("exec", "ends", "--", "sh", "-c", "echo kept >/kept/file; echo there >/data/file")
        os.kill(inst.state.pid, signal.SIGKILL)
        wait_for(lambda: not servers_of(inst))
        ok("start", "ends")
        assert ok("exec", "ends", "--", "cat", "/kept/file", "/data/file") == "kept\nthere\n"
        inst = instance.load("ends")
        assert len(servers_of(inst)) == 2
        killed = servers_of(inst)[0]
        os.kill(killed, signal.SIGKILL)  # the guest and its other volume go on; who asks for this one waits
        assert ok("exec", "ends", "--", "cat", "/kept/file") == "kept\n"
        ok("stop", "-t", "3", "ends")
        wait_for(lambda: not servers_of(inst))
    finally:
        vmctl("rm", "-f", "-v", "ends")
    assert store.names() == [name for name in store.names() if name != "kept"]
    assert (tmp_path / "data/file").read_text() == "there\n"


def test_a_killed_start_leaves_nothing(guest_root, tmp_path):
    """The command is killed when the file server runs and QEMU does not."""
    work = Workload("killed", "tiny", ("sleep", "1000"), volumes=(Volume(str(tmp_path), "/v"),), network="none")
    pid = os.fork()
    if pid == 0:
        inst = engine.create(work, VmBackend())
        with inst.locked():
            VmBackend().prepare(inst)
            inst.save()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    inst = instance.load("killed")
    (server_pid,) = servers_of(inst)
    started = processes.start_time(server_pid)
    ok("rm", "-f", "killed")
    assert not processes.alive(server_pid, started)
    assert not os.path.exists(inst.run_dir)


# Refusals, before anything starts


def test_what_a_guest_cannot_have_is_refused(guest_root, tmp_path, monkeypatch):
    work = Workload("w", "tiny", ("true",), network="none")

    def problems(*volumes):
        return [problem.text for problem in VmBackend().check(work._replace(volumes=volumes))]

    with socket.socket(socket.AF_UNIX) as special:
        special.bind(str(tmp_path / "socket"))
        (text,) = problems(Volume(str(tmp_path / "socket"), "/s"))
    assert "is a socket, a FIFO or a device of this kernel" in text
    (text,) = problems(*(Volume("data", f"/v{number}") for number in range(17)))
    assert "16 volumes, not 17" in text
    assert problems(Volume("data", "/v"), Volume("", "/w"), Volume(str(tmp_path), "/x")) == []
    monkeypatch.setattr("vmm.volumes.PROGRAM", "/nowhere/virtiofsd")
    (text,) = problems(Volume("data", "/v"))
    assert "/nowhere/virtiofsd, which is not installed" in text
    assert "data" not in store.names()


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [("file", "/etc", "is a folder in the instance"), ("", "/etc/passwd", "is a file in the instance")],
)
def test_a_volume_of_another_kind_than_its_target_is_named(guest_root, tmp_path, source, target, why):
    (tmp_path / "file").write_text("")
    words = ("run", "--mode", "vm", "--network", "none", "-v", f"{tmp_path}/{source}:{target}", "tiny", "--", "true")
    assert why in refused(*words)
