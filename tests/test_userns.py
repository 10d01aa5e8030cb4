"""A container in a user namespace: the ids and the privileges of its root on the host."""

import errno
import json
import os
import signal
import struct
import time

import pytest
from support.commands import Terminal, ok, refused, start, vmctl, wait_for
from support.images_made import add
from support.networks import host_view

from containers import identity
from images.store import store
from vmctl import ids, userns
from vmctl.errors import ConflictError
from vmctl.instances import instance
from vmctl.linux import cgroups, mountinfo, syscalls
from vmctl.net import connect
from vmctl.spec.workload import ContainerOptions, Workload

AUTO = ("--userns", "auto", "--network", "none")
HOST = ("--userns", "host", "--network", "none")


def workload(tmp_path, name="box", text="command: [sleep, '1000']", network="none"):
    """Return the path of a workload file with `userns: auto`."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: {name}\nimage: tiny\nnetwork: {network}\ncontainer: {{userns: auto}}\n{text}\n")
    return str(path)


def first_id(name):
    return instance.load(name).state.own["first_id"]


def inside(name, script, *flags):
    return ok("exec", *flags, name, "--", "sh", "-c", script)


@pytest.fixture
def box(own_root, tmp_path):
    """The name of a running container."""
    ok("up", workload(tmp_path))
    yield "box"
    ok("down", "box")


@pytest.fixture
def plain_folder(tmp_path):
    """A folder of a file system that cannot map owners, with a file that only the host's root may read."""
    folder = tmp_path / "plain"
    folder.mkdir()
    syscalls.mount("ramfs", str(folder), "ramfs")
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o600)
    yield folder
    syscalls.umount2(str(folder))


def test_ids_inside_are_a_range_outside(box):
    first = first_id(box)
    assert inside(box, "cat /proc/self/uid_map /proc/self/gid_map").split() == ["0", str(first), "65536"] * 2
    assert inside(box, "id -u; id -g").split() == ["0", "0"]
    pid = instance.load(box).state.pid
    assert os.stat(f"/proc/{pid}").st_uid == first
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")


def test_files_of_the_image_are_roots_inside(box):
    assert set(inside(box, "stat -c %u:%g / /bin/busybox /etc/passwd /root /dev /dev/pts").split()) == {"0:0"}
    assert inside(box, "cd /root && rm /etc/passwd && mkdir /usr/new && mv /srv /srv2 && ls -d /srv2") == "/srv2\n"


def test_what_it_writes_is_not_roots_outside(box):
    inside(box, "echo x > /made; chown 1000:1001 /made; mkdir /folder")
    upper = instance.load(box).path("upper")
    made, folder = os.stat(f"{upper}/made"), os.stat(f"{upper}/folder")
    assert (made.st_uid, made.st_gid) == (first_id(box) + 1000, first_id(box) + 1001)
    assert folder.st_uid == first_id(box)


def test_exec_as_another_user(box):
    assert inside(box, "id -u; id -g; cat /proc/self/setgroups", "-u", "1000:1001").split() == ["1000", "1001", "allow"]
    assert inside(box, "readlink /proc/self/ns/user") == inside(box, "readlink /proc/1/ns/user")


def test_the_workloads_user(own_root, tmp_path):
    ok("up", workload(tmp_path, text="user: '1000:1000'\ncommand: [sleep, '1000']"))
    try:
        assert os.stat(f"/proc/{instance.load('box').state.pid}").st_uid == first_id("box") + 1000
    finally:
        ok("down", "box")
    assert "the user 70000:0 does not exist here" in refused("run", *AUTO, "-u", "70000", "tiny", "--", "id")
    assert ok("run", *AUTO, "-u", "nobody", "tiny", "--", "id", "-u") == "65534\n"


def test_root_inside_has_the_default_capabilities_over_its_own(box):
    mask = identity.capability_mask((), ())
    status = dict(line.split(":\t", 1) for line in inside(box, "cat /proc/self/status").splitlines() if ":\t" in line)
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")] == [mask] * 3
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


OF_THE_HOST = (
    "mknod /tmp/disk b 254 0",
    "mknod /tmp/memory c 1 1",
    "mount -t ext4 /dev/vda /mnt",
    "echo 1 > /proc/sys/kernel/panic",
    "echo c > /proc/sysrq-trigger",
    "echo 1 > /proc/1/oom_score_adj && echo -1000 > /proc/1/oom_score_adj",
    "cat /proc/kmsg",
    "dmesg -n 1",
    "adjtimex -t 10001",
)


def test_with_all_capabilities_it_has_none_over_the_host(own_root, tmp_path):
    """Even unconfined, root inside cannot do what needs the host's root, but can do all in its own namespaces."""
    text = "container: {userns: auto, cap_add: [ALL], seccomp: unconfined}\ncommand: [sleep, '1000']"
    path = tmp_path / "box.yaml"
    path.write_text(f"name: box\nimage: tiny\nnetwork: none\n{text}\n")
    hostname = os.uname().nodename
    ok("up", str(path))
    try:
        assert [command for command in OF_THE_HOST if vmctl("exec", "box", "--", "sh", "-c", command).code == 0] == []
        assert "Operation not permitted" in vmctl("exec", "box", "--", "mknod", "/tmp/disk", "b", "254", "0").err
        assert (
            inside("box", "hostname other; hostname; mount -t tmpfs x /tmp; ip address add 10.1.1.1 dev lo")
            == "other\n"
        )
    finally:
        ok("down", "box")
    assert os.uname().nodename == hostname


def test_a_volume_is_roots_on_both_sides(own_root, tmp_path):
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "given").write_text("given")
    (folder / "given").chmod(0o600)
    single = tmp_path / "single"
    single.write_text("single")
    os.chown(folder / "given", 5, 6)
    flags = ("-v", f"{folder}:/v", "-v", f"{folder}:/r:ro", "-v", f"{single}:/etc/single")
    script = "stat -c %u:%g /v /v/given; cat /v/given /etc/single; touch /v/made; chown 7:8 /v/given; touch /r/no"
    result = vmctl("run", *AUTO, *flags, "tiny", "--", "sh", "-c", script)
    assert result.out == "0:0\n5:6\ngivensingle"
    assert result.code != 0
    assert "Read-only file system" in result.err
    assert os.stat(folder / "made").st_uid == 0
    assert (os.stat(folder / "given").st_uid, os.stat(folder / "given").st_gid) == (7, 8)


def test_a_volume_that_cannot_be_mapped_is_nobodys(own_root, plain_folder):
    script = "stat -c %u:%g /v/secret; cat /v/secret; touch /v/new"
    result = vmctl("run", *AUTO, "-v", f"{plain_folder}:/v", "tiny", "--", "sh", "-c", script)
    assert result.out == "65534:65534\n"
    assert result.code != 0
    assert result.err.count("ermission denied") == 2
    assert os.listdir(plain_folder) == ["secret"]


def test_files_streams_and_exit_code(own_root, tmp_path):
    text = (
        "files: [{path: /srv/new/note, content: hello, mode: '0640'}]\n"
        "command: [sh, -c, 'cd /srv/new; stat -c %u:%a note; cat note > /dev/stdout; echo e > /dev/stderr; exit 7']"
    )
    ok("up", workload(tmp_path, text=text))
    assert vmctl("wait", "box").code == 7
    assert vmctl("logs", "box")[1:] == ("0:640\nhello", "e\n")
    ok("down", "box")


@pytest.mark.parametrize("user", ["0", "1000"])
def test_any_user_may_open_its_own_streams(own_root, tmp_path, user):
    """Many programs open /dev/stdout again; it also works without a user namespace."""
    path = tmp_path / "box.yaml"
    path.write_text(
        f"name: box\nimage: tiny\nnetwork: none\nuser: '{user}'\ncommand: [sh, -c, 'echo out > /dev/stdout']\n"
    )
    ok("up", str(path))
    assert vmctl("wait", "box").code == 0
    assert ok("logs", "box") == "out\n"
    ok("down", "box")


def test_errors_of_the_command(own_root):
    assert "the command nosuch is not in the image" in refused("run", *AUTO, "tiny", "--", "nosuch", code=127)
    assert "cannot be executed" in refused("run", *AUTO, "tiny", "--", "/etc/passwd", code=126)
    assert "the user nosuch" in refused("run", *AUTO, "-u", "nosuch", "tiny", "--", "id")


def test_terminals(box):
    """A terminal of the container's devpts, which root inside can open by its name."""
    for words in (("exec", "-t", box, "--"), ("run", *AUTO, "-t", "tiny", "--")):
        terminal = Terminal(*words, "sh", "-c", "tty; echo by name > /dev/pts/0; stat -c %u:%g /dev/pts/0; stty size")
        code, output = terminal.end()
        assert code == 0, output
        assert output.split("\r\n")[:4] == ["/dev/pts/0", "by name", "0:5", "30 100"]


def test_network_of_its_own_answers(own_root, tmp_path):
    """A port below 1024: root inside is also root of its network namespace."""
    text = (
        "files: [{path: /srv/index.html, content: hello}]\ncommand: [httpd, -f, -p, '80', -h, /srv]\nready: {http: 80/}"
    )
    ok("up", workload(tmp_path, text=text, network="bridge"))
    try:
        with connect.connect(instance.load("box").state.address, 80, 5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").read().endswith(b"hello")
    finally:
        ok("down", "box")


def test_limits(own_root):
    layout = cgroups.hierarchy()
    names = {1: ("memory/memory.limit_in_bytes", "pids/pids.max"), 2: ("memory.max", "pids.max")}[layout.version]
    limits = ("-m", "64M", "--pids", "33", "-e", "F=" + " ".join(f"/sys/fs/cgroup/{name}" for name in names))
    assert ok("run", *AUTO, *limits, "tiny", "--", "sh", "-c", "cat $F").split() == [str(64 << 20), "33"]
    killed = vmctl("run", *AUTO, "-m", "8M", "tiny", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    assert killed.code == 137
    assert "ran out of memory" in killed.err


def test_two_have_different_ranges(own_root, tmp_path):
    for name in ("one", "two"):
        ok("up", workload(tmp_path, name))
    one, two = first_id("one"), first_id("two")
    assert abs(one - two) >= 65536
    ok("rm", "-f", "one")
    ok("up", workload(tmp_path, "three"))
    assert one not in ids.owners() or one == first_id("three")  # what is gone is free again
    ok("rm", "-f", "two")
    ok("rm", "-f", "three")


def test_ranges_can_run_out(own_root, monkeypatch, tmp_path):
    made = [instance.create(Workload(name=f"i{number}", image="tiny"), "container") for number in range(3)]
    monkeypatch.setattr(ids, "FOLDER", str(tmp_path / "ids"))
    monkeypatch.setattr(ids, "END", ids.FIRST + 2 * ids.COUNT)
    given = [userns.reserve(inst) for inst in made[:2]]
    assert sorted(given) == [ids.FIRST, ids.FIRST + ids.COUNT]
    assert userns.reserve(made[0]) == given[0]  # once more, the same
    with pytest.raises(ConflictError, match="all ranges"):
        userns.reserve(made[2])


def test_an_older_workload_file_is_read(own_root):
    """Instances made before the key existed have the ids of the host."""
    work = Workload(name="old", image="tiny", container=ContainerOptions(cap_add=("NET_ADMIN",), userns="host"))
    values = json.loads(work.to_json())
    assert values["container"].pop("userns") == "host"
    assert Workload.from_json(json.dumps(values)) == work


def test_an_instance_from_before_the_default_is_entered_as_it_is(own_root, tmp_path):
    """Its workload may name no user namespace; what it has is in its state."""
    path = tmp_path / "box.yaml"
    path.write_text("image: tiny\nnetwork: none\ncommand: [sleep, '1000']\ncontainer: {userns: host}\n")
    ok("up", str(path))
    inst = instance.load("box")
    with open(inst.path("workload.json"), "w", encoding="utf-8") as file:
        file.write(inst.work._replace(container=ContainerOptions()).to_json())
    assert inside("box", "cat /proc/self/uid_map").split() == ["0", "0", "4294967295"]
    inside("box", "touch /made")
    assert "A /made" in ok("diff", "box")
    ok("down", "box")


def test_it_is_the_default(own_root):
    mapped = ("sh", "-c", "cut -c 12-21 /proc/self/uid_map")
    assert ok("run", "--network", "none", "tiny", "--", *mapped) != ok("run", *HOST, "tiny", "--", *mapped)


def test_the_ids_of_the_host_are_asked_for_aloud(own_root, tmp_path):
    path = tmp_path / "box.yaml"
    path.write_text("image: tiny\nnetwork: none\ncommand: [sleep, '1000']\ncontainer: {userns: host}\n")
    warning = "userns: host: root in the container has the ids of root outside of it"
    assert f"warning: {warning}\n" in vmctl("up", str(path)).err
    assert json.loads(ok("inspect", "box"))[0]["weakened"] == [warning]
    ok("down", "box")
    assert vmctl("run", *HOST, "tiny", "--", "true").err == f"vmctl: warning: {warning}\n"
    assert vmctl("run", *AUTO, "tiny", "--", "true").err == ""


def test_a_capability_that_vmctl_lacks_is_named(own_root, tmp_path):
    """With the ids of the host nobody can be given what the caller does not have; a new user namespace has all."""

    def lacking():
        syscalls.prctl(syscalls.PR_CAPBSET_DROP, identity.CAPABILITIES.index("SYS_TIME"))

    path = tmp_path / "box.yaml"
    text = "image: tiny\nnetwork: none\ncommand: ['true']\ncontainer: {userns: %s, cap_add: [ALL]}\n"
    path.write_text(text % "host")
    assert "has no capability SYS_TIME" in refused("up", str(path), preexec_fn=lacking).replace("SYS_RESOURCE, ", "")
    path.write_text(text % "auto")
    ok("up", str(path), preexec_fn=lacking)
    ok("wait", "box")
    ok("rm", "box")


def test_the_network_of_the_host_without_power_over_it(own_root):
    script = "ls /sys/class/net; ip link set lo mtu 1000; ip link add x type dummy; touch /sys/x"
    result = vmctl("run", "--network", "host", "tiny", "--", "sh", "-c", script)
    assert set(result.out.split()) == set(os.listdir("/sys/class/net"))
    assert result.err.count("ermitted") == 2
    assert "Read-only file system" in result.err


def older_kernel(call=442, number=errno.ENOSYS):
    """Make mount_setattr, or another call, fail in this process and its children, as before Linux 5.12."""
    load, unless_equal, refuse, allow = (
        (0x20, 0, 0, 0),
        (0x15, 0, 1, call),
        (6, 0, 0, 0x50000 | number),
        0x7FFF0000,
    )
    program = (load, unless_equal, refuse, (6, 0, 0, allow))
    syscalls.seccomp_filter(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))


def test_a_kernel_that_cannot_is_named(own_root):
    output = refused("run", *AUTO, "tiny", "--", "true", preexec_fn=older_kernel)
    assert "this kernel cannot map the owners of an image to a user namespace: " in output
    assert "Function not implemented" in output
    assert ok("run", *HOST, "tiny", "--", "echo", "can", preexec_fn=older_kernel) == "can\n"


@pytest.mark.parametrize("flags", [AUTO, HOST])
def test_a_kernel_that_needs_attached_layers(own_root, tmp_path, flags):
    """Before Linux 6.15 overlayfs refuses a layer that is attached nowhere; here fsmount fails the same way."""
    script = ("sh", "-c", "echo new >/bin/made; stat -c %u /bin/made /bin/busybox; ls /srv; rm -r /usr")
    before = mountinfo.below(str(own_root))
    result = vmctl("run", *flags, "tiny", "--", *script, preexec_fn=lambda: older_kernel(432, errno.EINVAL))
    assert (result.code, result.out) == (0, "0\n0\n"), result
    assert mountinfo.below(str(own_root)) == before


def test_explain_names_the_range(own_root, tmp_path):
    output = ok("up", "--explain", "--dry-run", workload(tmp_path))
    assert "CLONE_NEWUSER" in output
    assert f'echo 0 {ids.FIRST} 65536 > "/proc/$PID/uid_map"' in output
    assert f"X-mount.idmap=b:0:{ids.FIRST}:65536" in output
    assert "mknod" not in output
    assert not (own_root / "lib" / "instances").exists()


@pytest.mark.parametrize("who", ["host", "auto"])
def test_nodes_that_an_image_brings_open_nothing(tmp_path, monkeypatch, who):
    tiny = store.find("tiny")
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "root"))
    (tmp_path / "tree").mkdir()
    os.mknod(tmp_path / "tree" / "zero", 0o20666, os.makedev(1, 5))
    add("hostile", tiny, tmp_path / "tree")
    result = vmctl("run", "--userns", who, "--network", "none", "hostile", "--", "sh", "-c", "ls /zero; echo > /zero")
    assert result.out == "/zero\n"
    assert result.code != 0
    assert "ermission denied" in result.err


def files(root):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)


def test_nothing_is_left(own_root, tmp_path):
    (tmp_path / "volume").mkdir()
    ok("run", *AUTO, "tiny", "--", "true")  # what stays for good is there: the lock of the layers
    before = host_view(own_root), files(own_root)
    text = f"volumes: ['{tmp_path}/volume:/v']\ncommand: [sleep, '1000']"
    ok("up", workload(tmp_path, text=text, network="bridge"))
    assert host_view(own_root) != before[0]
    ok("down", "box")
    assert (host_view(own_root), files(own_root)) == before
    refused("run", "--userns", "auto", "-v", f"{tmp_path}/volume:/v", "tiny", "--", "nosuch", code=127)
    assert (host_view(own_root), files(own_root)) == before


@pytest.mark.parametrize("delay_s", [0.05, 0.08, 0.11, 0.14])
def test_nothing_is_left_after_a_kill(own_root, tmp_path, delay_s):
    ok("run", *AUTO, "tiny", "--", "true")
    before = host_view(own_root), files(own_root)
    path = workload(tmp_path, network="bridge")
    process = start("up", path)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ok("down", "box")
    # a half-started supervisor ends by itself, when it sees that nobody waits for it
    wait_for(lambda: (host_view(own_root), files(own_root)) == before, timeout_s=120)


def test_removal_by_force_never_enters_a_volume_that_is_still_mounted(own_root, tmp_path):
    """In mode host the volumes are mounted on the host, in the instance's folder, which a damaged journal lacks."""
    (tmp_path / "volume/deep").mkdir(parents=True)
    (tmp_path / "volume/deep/kept").write_text("precious")
    text = f"volumes: ['{tmp_path}/volume:/v']\ncommand: [sleep, '1000']"
    ok("up", "--mode", "host", workload(tmp_path, text=text, network="host"))
    inst = instance.load("box")
    with open(inst.journal.path) as file:
        lines = file.readlines()
    with open(inst.journal.path, "w") as file:
        file.writelines("damaged\n" if "rootfs" in line else line for line in lines)
    try:
        assert f"umount {inst.path('rootfs')}" in refused("rm", "-f", "box")
        assert (tmp_path / "volume/deep/kept").read_text() == "precious"
    finally:
        mountinfo.unmount_all(inst.path("rootfs"))
        ok("rm", "-f", "box")
    assert mountinfo.below(str(own_root)) == []


@pytest.mark.parametrize("mode", ["container", "host"])
def test_a_root_that_is_a_link_leaves_no_mount_and_no_volume_is_emptied(own_root, tmp_path, monkeypatch, mode):
    """The kernel lists mount points without links."""
    (tmp_path / "link").symlink_to(own_root)
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "link"))
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/kept").write_text("precious")
    userns_of = {"container": "auto", "host": "host"}[mode]
    path = tmp_path / "box.yaml"
    path.write_text(
        f"image: tiny\nnetwork: {'none' if mode == 'container' else 'host'}\ncontainer: {{userns: {userns_of}}}\n"
        f"volumes: ['{tmp_path}/volume:/v']\ncommand: [sleep, '1000']\n"
    )
    try:
        ok("up", "--mode", mode, str(path))
        ok("rm", "-f", "box")
        assert mountinfo.below(str(own_root)) == []
    finally:
        mountinfo.unmount_all(str(own_root))
    assert (tmp_path / "volume/kept").read_text() == "precious"
