"""What an image leaves to the runtime: /etc/hosts, /etc/hostname, /etc/resolv.conf and /tmp, in every mode."""

import os

import pytest
from support.commands import inspect, ok, vmctl
from support.images_made import add

from images.layer.lookup import View
from images.store import store
from images.store.image import provided
from vmctl import backends
from vmctl.spec.workload import File, Volume, Workload

EACH_MODE = pytest.mark.parametrize("mode", sorted(backends.modes()))
ISOLATING = pytest.mark.parametrize("mode", ["container", "vm"])
BARE = "FROM scratch\nCOPY --from=tiny /bin/busybox /bin/busybox\n"


@pytest.fixture(scope="module", autouse=True)
def bare(own_store, tmp_path_factory):
    """The image `bare`: a program and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "Dockerfile").write_text(f'{BARE}CMD ["/bin/busybox", "sleep", "1000"]\n')
    ok("image", "build", "-q", "-t", "bare", str(folder))


def busybox(name, script):
    return ok("exec", name, "--", "/bin/busybox", "sh", "-c", script)


def test_the_workloads_own_files_and_volumes_are_left_out():
    work = Workload("w", "i", files=(File("/etc//hosts"),), volumes=(Volume("/v", "/etc/hostname"),))
    assert provided(work, "w", None, "nameserver 10.0.0.1\n") == (File("/etc/resolv.conf", "nameserver 10.0.0.1\n"),)


@ISOLATING
def test_an_image_with_nothing_but_a_program(mode, tmp_path):
    """The own name has the own address, and none of it is a change of the instance."""
    name = f"bare-{mode}"
    (tmp_path / f"{name}.yaml").write_text("image: bare\n")
    ok("up", "--mode", mode, str(tmp_path / f"{name}.yaml"))
    address = inspect(name)["address"]
    assert busybox(name, "hostname -i").split() == [address]
    hosts = busybox(name, "cat /etc/hosts").splitlines()
    assert [line.split() for line in hosts] == [
        ["127.0.0.1", "localhost"],
        ["::1", "localhost", "ip6-localhost", "ip6-loopback"],
        [address, name],
    ]
    assert busybox(name, "cat /etc/hostname; stat -c %a /tmp") == f"{name}\n1777\n"
    assert busybox(name, "echo 10.0.0.1 other >>/etc/hosts; cat /etc/hosts | tail -n 1") == "10.0.0.1 other\n"
    assert ok("diff", name) == ""
    ok("commit", name, "committed")
    with View(store.find("committed").layers) as view:
        assert [path for path in ("/etc", "/tmp") if view.find(path)] == []
    ok("down", name)


def test_the_plain_process_has_the_hosts_name(tmp_path):
    said = ok("run", "--mode", "host", "bare", "--", "/bin/busybox", "cat", "/etc/hostname", "/etc/hosts")
    assert said.splitlines()[0] == os.uname().nodename
    assert said.splitlines()[-1].split() == ["127.0.0.1", os.uname().nodename]


def test_name_servers_are_the_hosts_in_its_network_only():
    with open("/etc/resolv.conf", encoding="utf-8") as file:
        content = file.read()
    words = ("tiny", "--", "cat", "/etc/resolv.conf")
    assert ok("run", "--network", "host", *words) == content
    assert ok("run", "--network", "none", *words) == ""


@ISOLATING
def test_a_read_only_root_has_them_too(mode):
    script = "cat /etc/hostname; echo x >/etc/hosts"
    result = vmctl(
        "run", "--mode", mode, "--name", "sealed", "--read-only", "bare", "--", "/bin/busybox", "sh", "-c", script
    )
    assert result.out == "sealed\n"
    assert "Read-only file system" in result.err


@ISOLATING
def test_files_of_the_workload_win(mode, tmp_path):
    name = f"own-{mode}"
    text = "image: bare\nfiles: [{path: /etc/hosts, content: mine}]\n"
    (tmp_path / f"{name}.yaml").write_text(text)
    ok("up", "--mode", mode, str(tmp_path / f"{name}.yaml"))
    assert busybox(name, "cat /etc/hosts") == "mine"
    assert ok("diff", name) == "A /etc\nA /etc/hosts\n"
    ok("down", name)


def test_volumes_win(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("of the volume")
    assert ok("run", "-v", f"{tmp_path}/etc:/etc", "bare", "--", "/bin/busybox", "cat", "/etc/hosts") == "of the volume"
    assert os.listdir(tmp_path / "etc") == ["hosts"]


def test_a_build_step_leaves_none_of_them(tmp_path):
    run = 'RUN ["/bin/busybox", "sh", "-c", "cat /etc/hosts >/dev/null"]\n'
    (tmp_path / "Dockerfile").write_text(BARE + run + 'RUN ["/bin/busybox", "sh", "-c", "echo a >/etc/conf"]\n' + run)
    result = vmctl("image", "build", "-t", "steps", str(tmp_path))
    assert result.code == 0, result
    assert result.err.count("nothing changed") == 2
    with View(store.find("steps").layers) as view:
        assert view.find("/etc/conf")
        assert [path for path in ("/etc/hosts", "/etc/hostname", "/tmp") if view.find(path)] == []


HOLDS = "[ -c /dev/null ] && [ -c /dev/full ] && ! [ -e /dev/hosts ] && echo a >/dev/null && echo held"


@pytest.fixture(scope="module")
def hostile(own_store, tmp_path_factory):
    tiny, folder = store.find("tiny"), tmp_path_factory.mktemp("hostile")
    for name in ("hostile/etc", "elsewhere", "root-link/etc"):
        os.makedirs(folder / name)
    os.symlink("/dev/null", folder / "hostile/etc/hosts")
    os.mkfifo(folder / "hostile/etc/hostname")
    os.symlink("../../../../../../dev/full", folder / "hostile/etc/resolv.conf")
    os.symlink("/dev", folder / "elsewhere/etc")
    os.symlink("/nowhere", folder / "elsewhere/tmp")
    os.symlink("/proc/1/root/etc/hosts", folder / "root-link/etc/hosts")
    for name in os.listdir(folder):
        add(name, tiny, folder / name)


@ISOLATING
@pytest.mark.parametrize("image", ["hostile", "elsewhere"])
def test_links_and_special_files_are_left_alone(hostile, mode, image):
    assert ok("run", "--mode", mode, image, "--", "sh", "-c", HOLDS) == "held\n"


@EACH_MODE
def test_no_link_leads_to_the_hosts_files(hostile, mode):
    """In mode host, process 1 is the host's, and its root is the host's root."""
    with open("/etc/hosts", "rb") as file:
        before = file.read()
    ok("run", "--mode", mode, "root-link", "--", "true")
    with open("/etc/hosts", "rb") as file:
        assert file.read() == before
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert [line for line in file if line.split()[4] == "/etc/hosts"] == []
