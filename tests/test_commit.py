"""diff and commit of real instances: the same in every mode, and an image of one mode runs in the others."""

import json
import os
import signal
import sys
import time

import pytest
from support.commands import ok, refused, start, vmctl, wait_for
from support.host_state import host_state, left_behind
from support.images_made import add
from support.trees import read

from images.layer import lookup
from images.store import store
from vmctl import backends, paths
from vmctl.instances import instance
from vmctl.linux import syscalls
from vmctl.programs import run

MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, as setcap(8) stores it

# Everything but where the kernel's file systems are mounted: names, modes, owners, times, contents, link targets.
LISTING = """
cd /
all() { find . -xdev -mindepth 1 ! -path './dev*' ! -path './proc*' ! -path './sys*' ! -path './run*' \
    ! -path './etc/hosts' ! -path './etc/hostname' ! -path './etc/resolv.conf' "$@"; }
all -exec stat -c '%N %f %u:%g %t:%T %Y' {} + | sort
all -type f -exec sha256sum {} + | sort
"""

FIRST = """
set -e
echo one >/etc/one
rm /etc/issue
rm -r /usr/share/doc
rm -r /srv/site && mkdir /srv/site && echo again >/srv/site/again
chown 1000:70000 /etc/group
mkfifo /etc/fifo
echo x >'/etc/with a space'
mv /bin/privileged /bin/moved
"""
FIRST_SAYS = """\
C /bin
A /bin/moved
D /bin/privileged
C /etc
A /etc/fifo
C /etc/group
D /etc/issue
A /etc/one
A /etc/with a space
C /srv
C /srv/site
A /srv/site/again
D /srv/site/deep
D /srv/site/index
C /usr
C /usr/share
D /usr/share/doc
"""

SECOND = """
set -e
echo more >>/etc/one
chmod 600 /etc/shells
rm '/etc/with a space'
rm -r /srv/site && mkdir /srv/site && echo third >/srv/site/third
mkdir -p /usr/share/doc/new && echo back >/usr/share/doc/new/file
echo renewed >/etc/issue
ln /etc/services /etc/linked
ln -s ../nowhere /etc/symlink
mv /etc/hosts.deny /etc/hosts.allow
cat /etc/nsswitch.conf >/dev/null; : >>/etc/nsswitch.conf
mkdir /var/gone && rmdir /var/gone
"""
SECOND_SAYS = """\
C /etc
A /etc/hosts.allow
D /etc/hosts.deny
A /etc/issue
A /etc/linked
C /etc/one
C /etc/shells
A /etc/symlink
D /etc/with a space
C /srv
C /srv/site
D /srv/site/again
A /srv/site/third
C /usr
C /usr/share
A /usr/share/doc
A /usr/share/doc/new
A /usr/share/doc/new/file
"""


@pytest.fixture(scope="module")
def base(own_store, tmp_path_factory):
    """`tiny` with some more files, in a store of the tests' own; its name."""
    tree = tmp_path_factory.mktemp("base")
    tree.chmod(0o755)  # it becomes the root folder
    files = ("etc/issue", "etc/services", "etc/hosts.deny", "usr/share/doc/a/b", "srv/site/index", "srv/site/deep/x")
    for name in (*files, "bin/privileged"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"this is {name}\n")
    os.setxattr(tree / "bin/privileged", "security.capability", CAPABILITY)
    add("base", store.find("tiny"), tree, cmd=("/bin/sleep", "1000"), env=("FROM=base",), labels={"kept": "yes"})
    return "base"


@pytest.fixture(scope="module")
def first(base):
    """An image committed from a container, and the listing of its files as that container saw them."""
    up(base, "container")
    try:
        assert diff("box") == ""
        inside("box", FIRST)
        assert diff("box") == FIRST_SAYS
        seen = inside("box", LISTING)
        digest = ok("commit", "box", "first", "-m", "the first").strip()
        assert digest == store.find("first").digest
    finally:
        ok("down", "box")
    return seen


def up(image, mode, name="box", text="container: {userns: host}"):
    """Start an instance; without a user namespace, so that it has ids above 65535."""
    path = os.path.join(os.environ["VMCTL_ROOT"], f"{name}.yaml")
    with open(path, "w", encoding="utf-8") as file:
        network = "bridge" if backends.load(mode).features.own_network else "host"
        file.write(f"image: {image}\ncommand: [sleep, '1000']\nnetwork: {network}\n{text}\n")
    ok("up", path, "--mode", mode)


def inside(name, script):
    return ok("exec", "-T", name, "--", "sh", "-c", script)


def diff(name, *flags):
    return ok("diff", name, *flags)


def seen_in(image, mode="container"):
    return ok("run", "--mode", mode, "--userns", "host", "--network", "none", image, "--", "sh", "-c", LISTING)


@pytest.fixture
def box(base):
    """A container on `base`, and its name."""
    up(base, "container")
    yield "box"
    vmctl("down", "box")


def files_of_the_store():
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(paths.images_root())
        for name in names
        if not name.endswith("lock")
    )


# From any mode to any other


@pytest.mark.parametrize("mode", MODES)
def test_a_commit_of_a_container_runs_in_every_mode_and_one_of_every_mode_in_a_container(first, mode):
    """One instance per mode: it sees the files of the container, changes them, `diff` lists that, it is committed."""
    up("first", mode)
    try:
        assert diff("box") == ""
        assert inside("box", LISTING) == first
        inside("box", SECOND)
        assert diff("box") == SECOND_SAYS
        rows = json.loads(diff("box", "--format", "json"))
        assert [f"{row['kind']} {row['path']}\n" for row in rows] == SECOND_SAYS.splitlines(keepends=True)
        seen = inside("box", LISTING)
        ok("commit", "box", f"second:{mode}")
        assert diff("box") == SECOND_SAYS  # it goes on as before
        ok("stop", "-t", "1", "box")
        assert diff("box") == SECOND_SAYS
        assert run_twice_the_same(f"second:{mode}", f"stopped:{mode}")
    finally:
        vmctl("down", "box")
    assert seen_in(f"second:{mode}") == seen


def run_twice_the_same(running, stopped):
    """Return whether a commit of the instance, which has ended, has the same layers as the one while it ran."""
    ok("commit", "box", stopped)
    return store.find(running).layers == store.find(stopped).layers


def test_attributes_and_links_come_along(first):
    with lookup.View(store.find("first").layers) as view:
        assert view.find("/bin/moved").attributes.xattrs == {"security.capability": CAPABILITY}
        assert view.find("/bin/privileged") is None
    up("first", "container")
    try:
        inside("box", "ln /etc/one /etc/two; ln /etc/one /etc/three")
        ok("commit", "box", "linked")
    finally:
        ok("down", "box")
    assert ok("run", "--network", "none", "linked", "--", "stat", "-c", "%h", "/etc/one") == "3\n"


def test_the_configuration_is_inherited_and_changed(box):
    changes = ('CMD ["cat", "/etc/issue"]', "ENV A=b", "LABEL added=too", "WORKDIR /srv", "USER 1000", "EXPOSE 80")
    flags = [word for change in changes for word in ("-c", change)]
    ok("commit", box, "changed:1", *flags, "-m", "a message", "-a", "somebody", "--change", "VOLUME /data")
    document = store.document(store.find("changed:1"))
    config = document["config"]
    assert config["Env"] == ["FROM=base", "A=b"]
    assert config["Labels"] == {"kept": "yes", "added": "too"}
    assert (config["WorkingDir"], config["User"]) == ("/srv", "1000")
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Volumes"] == {"/data": {}}
    last = document["history"][-1]
    assert (last["created_by"], last["comment"], last["author"]) == (f"vmctl commit {box}", "a message", "somebody")
    assert last["created"] == document["created"]
    assert len(document["history"]) == len(document["rootfs"]["diff_ids"]) == 3
    assert ok("run", "--network", "none", "changed:1") == "this is etc/issue\n"
    assert "does not change a configuration" in refused("commit", box, "changed:2", "-c", "RUN rm -rf /")
    assert "there is no image changed:2" in refused("image", "inspect", "changed:2")


# as setcap(8) inside would: the kernel adds whose root it is that the capability is good for
SET_CAPABILITY = """
import os, sys
from vmctl.linux import syscalls
file = os.open(f"/proc/{sys.argv[1]}/root/etc/mine", os.O_RDWR)
syscalls.setns(os.open(f"/proc/{sys.argv[1]}/ns/user", os.O_RDONLY))
os.setxattr(file, "security.capability", bytes.fromhex(sys.argv[2]))
"""


def test_ids_of_a_user_namespace_are_those_inside(base):
    up(base, "container", text="container: {userns: auto}")
    try:
        pid = instance.load("box").state.pid
        inside("box", "echo x >/etc/mine; chown 1000:1001 /etc/mine; rm /etc/issue; rm -r /srv/site; mkdir /srv/site")
        run([sys.executable, "-c", SET_CAPABILITY, str(pid), CAPABILITY.hex()])
        output = "C /etc\nD /etc/issue\nA /etc/mine\nC /srv\nC /srv/site\nD /srv/site/deep\nD /srv/site/index\n"
        assert diff("box") == output
        ok("commit", "box", "unshifted")
    finally:
        ok("down", "box")
    with lookup.View(store.find("unshifted").layers) as view:
        attributes = view.find("/etc/mine").attributes
        assert (attributes.uid, attributes.gid) == (1000, 1001)
        assert attributes.xattrs == {"security.capability": CAPABILITY}
        assert view.find("/srv/site").attributes.uid == 0
        assert view.find("/etc/issue") is None


def test_files_of_the_workload_are_part_of_what_there_is(base):
    up(base, "container", text="files: [{path: /etc/configured, content: seen}]")
    try:
        assert diff("box") == "C /etc\nA /etc/configured\n"
        ok("commit", "box", "configured")
    finally:
        ok("down", "box")
    assert ok("run", "--network", "none", "configured", "--", "cat", "/etc/configured") == "seen"


def test_what_is_mounted_by_the_user_is_not_in_the_image(base, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/secret").write_text("secret")
    volumes = f"volumes: ['{tmp_path}/data:/mnt/deep/data', '{tmp_path}/data/secret:/etc/secret:ro']"
    up(base, "container", text=volumes)
    try:
        assert inside("box", "cat /mnt/deep/data/secret /etc/secret") == "secretsecret"
        inside("box", "echo x >/mnt/deep/data/made")
        assert diff("box") == ""
        ok("commit", "box", "unmounted")
    finally:
        ok("down", "box")
    assert (
        ok("run", "--network", "none", "unmounted", "--", "sh", "-c", "ls -d /mnt /etc/secret 2>&1; true").count(
            "No such file"
        )
        == 2
    )


# While things happen


def test_the_workload_stands_still_meanwhile_unless_told_not_to(base):
    up(base, "container", text="files: [{path: /tick, content: 'while :; do date +%s%N >/a; cp /a /b; done'}]")
    process = start("exec", "--no-stdin", "box", "--", "sh", "/tick")
    try:
        wait_for(lambda: os.path.exists(instance.load("box").path("upper/b")))
        ok("commit", "box", "still")
        ok("commit", "box", "moving", "--no-pause")
        assert ok("run", "--network", "none", "still", "--", "sh", "-c", "ls /a /b")
        before = inside("box", "cat /a")
        assert wait_for(lambda: inside("box", "cat /a") != before)
    finally:
        ok("down", "box")
        process.communicate(timeout=120)


def test_no_link_of_the_workloads_leads_anywhere(box):
    """It could be put in the place of a file that is about to be read as the host's root."""
    inside(box, "ln -s /etc /folder; ln -s /etc/shadow /file")
    inst = instance.load(box)
    with backends.load("container").writable(inst, pause=False) as writable:
        assert os.readlink(f"{writable.folder}/file") == "/etc/shadow"
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            os.listdir(f"{writable.folder}/folder")
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            read(f"{writable.folder}/file")


def test_files_that_come_and_go_and_change_their_kind(base):
    """Without a pause: a commit is made, or fails with a sentence; diff never fails."""
    script = (
        "while :; do rm -rf /x; mkdir /x; date >/x/a; rm -rf /x; ln -s /etc /x; rm /x; mkfifo /x; rm /x; date >/x; done"
    )
    up(base, "container", text=f"files: [{{path: /go, content: '{script}'}}]")
    process = start("exec", "--no-stdin", "box", "--", "sh", "/go")
    try:
        for _ in range(8):
            assert diff("box").endswith(("A /go\n", "A /x\n", "A /x/a\n"))
            result = vmctl("commit", "--no-pause", "box", "moving")
            assert result.code in (0, 125), result
            assert result.code == 0 or "changed while it was read" in result.err, result
            ok("commit", "box", "still")
    finally:
        ok("down", "box")
        process.communicate(timeout=120)


def test_an_attached_run_can_be_looked_at_and_committed(base):
    process = start("run", "--name", "box", "--network", "none", base, "--", "sh", "-c", "echo x >/made; sleep 1000")
    try:
        wait_for(lambda: vmctl("diff", "box").out == "A /made\n")
        ok("commit", "box", "attached")
    finally:
        ok("kill", "box")
        process.communicate(timeout=120)
    assert ok("run", "--network", "none", "attached", "--", "cat", "/made") == "x\n"


def test_two_commits_at_once(box):
    inside(box, "dd if=/dev/urandom of=/large bs=1M count=30 2>/dev/null")
    processes = [start("commit", box, f"at-once:{number}") for number in range(3)]
    processes += [start("commit", box, "at-once:same") for _ in range(2)]
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert out.startswith(b"sha256:")
    layers = {store.find(f"at-once:{tag}").layers for tag in ("0", "1", "2", "same")}
    assert len(layers) == 1
    assert inside(box, "echo goes on") == "goes on\n"


def test_the_image_is_that_of_the_start_although_the_name_has_moved_on(base, tmp_path):
    (tmp_path / "old").write_text("old")
    tiny = store.find("tiny")
    add("moving", tiny, tmp_path)
    up("moving", "container")
    try:
        (tmp_path / "old").write_text("new")
        add("moving", tiny, tmp_path)
        inside("box", "echo x >/made")
        assert diff("box") == "A /made\n"
        ok("image", "rm", "moving")
        assert json.loads(ok("inspect", "box"))[0]["footprint"]["shared_disk_bytes"] > 1 << 20
        ok("commit", "box", "moved")
        add("moving", tiny, tmp_path)
    finally:
        ok("down", "box")
    assert ok("run", "--network", "none", "moved", "--", "cat", "/old", "/made") == "oldx\n"
    assert ok("run", "--network", "none", "moving", "--", "cat", "/old") == "new"


def test_what_it_was_built_on_may_go(base, tmp_path):
    (tmp_path / "below").write_text("below")
    add("below", store.find("tiny"), tmp_path)
    up("below", "container")
    inside("box", "echo above >/above")
    ok("commit", "box", "above")
    assert "the image below is used by box" in refused("image", "rm", "below")
    ok("down", "box")
    ok("image", "rm", "below")
    assert ok("run", "--network", "none", "above", "--", "cat", "/below", "/above") == "belowabove\n"


def test_a_taken_name_is_the_new_images(box):
    ok("commit", box, "taken")
    old = store.find("taken")
    inside(box, "echo x >/made")
    ok("commit", box, "taken")
    new = store.find("taken")
    assert new.digest != old.digest
    assert not os.path.exists(old.layers[-1].path)
    assert os.path.exists(new.layers[-1].path)


# What goes wrong


@pytest.mark.parametrize(
    "name", ["", "Web", "a b", "../up", ".build/x", "web:", "web:a b", "x" * 300, "-", "@sha256:0"]
)
def test_bad_names(box, name):
    before = files_of_the_store()
    assert "name" in refused("commit", box, "--", name)
    assert files_of_the_store() == before


def test_no_such_instance(own_store):
    for verb in (("diff", "nobody"), ("commit", "nobody", "x"), ("diff", "../x"), ("commit", "", "x")):
        assert "there is no instance" in refused(*verb)


def test_a_name_that_names_content(box):
    digest = store.find("base").digest
    assert "contains a digest, so it cannot name a new image" in refused("commit", box, f"web@{digest}")


def test_a_full_disk_leaves_store_and_instance_as_they_were(base, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    image = store.find(base)
    syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=24m")
    monkeypatch.setenv("VMCTL_ROOT", str(small))
    try:
        add("base", image)
        up("base", "container")
        inside("box", "dd if=/dev/urandom of=/large bs=1M count=14 2>/dev/null")
        before = files_of_the_store()
        assert "No space left on device" in refused("commit", "box", "too-large")
        assert files_of_the_store() == before
        inside("box", "rm /large; echo x >/small")
        ok("commit", "box", "small")
        ok("down", "box")
        assert ok("run", "--network", "none", "small", "--", "cat", "/small") == "x\n"
    finally:
        vmctl("down", "box")
        syscalls.umount2(str(small), syscalls.MNT_DETACH)


@pytest.mark.alone
def test_kill_in_the_middle_leaves_the_store_as_it_was_and_the_workload_going(base):
    up(base, "container", name="leak")
    try:
        inside("leak", "dd if=/dev/urandom of=/large bs=1M count=60 2>/dev/null")
        ok("image", "prune", "-f")  # what earlier tests have left without a name
        before, host_before = files_of_the_store(), host_state()
        for wait_s in (0, 0.02, 0.05):
            process = start("commit", "leak", "killed")
            poll(lambda: os.path.isdir(store.path("stages")) and os.listdir(store.path("stages")), process)
            time.sleep(wait_s)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            wait_for(lambda: {**left_behind(host_before), "files": None} == {"files": None})  # the guard is gone
            assert inside("leak", "echo goes on") == "goes on\n"
        ok("image", "prune", "-f")
        assert files_of_the_store() == before
        ok("commit", "leak", "whole")
    finally:
        ok("down", "leak")
    assert ok("run", "--network", "none", "whole", "--", "stat", "-c", "%s", "/large") == f"{60 << 20}\n"


def poll(condition, process):
    """Wait until a condition holds or a process has ended."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    return True


def test_an_instance_removed_meanwhile_is_no_image(base):
    up(base, "container", name="leak")
    inside("leak", "dd if=/dev/urandom of=/large bs=1M count=60 2>/dev/null")
    before = files_of_the_store()
    process = start("commit", "leak", "half")
    poll(lambda: os.path.isdir(store.path("stages")) and os.listdir(store.path("stages")), process)
    ok("rm", "-f", "leak")
    _, errors = process.communicate(timeout=120)
    if process.returncode:  # it was not quicker
        assert b"leak" in errors, errors
        assert b"Traceback" not in errors
        assert files_of_the_store() == before
    assert vmctl("run", "--network", "none", "half", "--", "true").code == (125 if process.returncode else 0)
