"""The changes of an instance, computed from its layers, compared with a comparison of the mounted trees."""

import os
import random
import shutil
import stat
from contextlib import contextmanager

import pytest
from support.overlays import mounted
from support.trees import of

from images.layer import changes, layers, lookup
from images.store.image import Image, ImageConfig
from images.store.staging import staging
from vmctl.linux import filetree, syscalls
from vmctl.writable import Writable

pytestmark = pytest.mark.usefixtures("empty_root")

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, as setcap(8) stores it


@pytest.fixture
def stage():
    with staging() as stage:
        yield stage


@contextmanager
def writing(made, folder):
    """Mount layers and a writable layer on top; lend the merged tree and the folder that is the upper one."""
    upper, work, merged = (os.path.join(folder, name) for name in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        os.makedirs(path)
    image = Image("x", "", "", tuple(made), ImageConfig(), "")
    with mounted(image) as below:
        lower = below
        syscalls.mount("overlay", merged, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
        try:
            yield merged, upper
        finally:
            syscalls.umount2(merged)


def compared(before, after):
    """Return the output of docker-diff(1) for two trees, each as returned by `trees.of`."""

    def seen(facts):
        mode, uid, gid, device, _, content, xattrs, mtime_ns = facts
        return mode, uid, gid, device, content, xattrs, 0 if stat.S_ISDIR(mode) else mtime_ns

    found = {}
    for path in before.keys() | after.keys():
        above = os.path.dirname(path)
        if path not in after:
            gone_with_its_folder = above and not (above in after and stat.S_ISDIR(after[above][0]))
            found.update({} if gone_with_its_folder else {path: "D"})
        elif path not in before:
            found[path] = "A"
        elif path != "." and seen(before[path]) != seen(after[path]):
            found[path] = "C"
    for path in list(found):
        while path := os.path.dirname(path):
            found.setdefault(path, "C")
    return {(kind, f"/{path}") for path, kind in found.items()}


def listed(made, upper, *own):
    """Return our list of changes."""
    found = changes.changes(made, Writable(upper, own))
    assert found == sorted(found, key=lambda change: os.fsencode(change.path))
    assert len({change.path for change in found}) == len(found)
    return {tuple(change) for change in found}


def layer(stage, tmp_path, name, paths):
    """Return a layer with a file, or a folder where it ends in a slash, at each path."""
    for path in paths:
        target = tmp_path / name / path
        (target if path.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            target.write_bytes(b"this is " + os.fsencode(path))
    return layers.from_folder(stage, str(tmp_path / name))


def script(root):
    """Make all kinds of changes to a tree that `diff` must distinguish."""

    def path(name):
        return os.path.join(root, name)

    with open(path("etc/new"), "w") as file:
        file.write("new")
    with open(path("etc/hosts"), "a") as file:
        file.write("more")
    os.chmod(path("etc/passwd"), 0o600)
    os.chown(path("etc/group"), 5, 6)
    os.setxattr(path("bin/tool"), "security.capability", CAPABILITY)
    os.unlink(path("etc/issue"))
    shutil.rmtree(path("usr/share/doc"))
    shutil.rmtree(path("srv"))
    os.mkdir(path("srv"))
    with open(path("srv/again"), "w") as file:
        file.write("again")
    os.link(path("etc/services"), path("etc/linked"))
    os.symlink("nowhere", path("etc/symlink"))
    os.rename(path("etc/shells"), path("etc/shells.old"))
    os.chmod(path("opt"), 0o700)
    os.close(os.open(path("etc/opened"), os.O_RDWR))  # copied up, and the same


BELOW = (
    *("etc/hosts", "etc/passwd", "etc/group", "etc/issue", "etc/services", "etc/shells", "etc/opened", "bin/tool"),
    *("usr/share/doc/a/b", "usr/share/doc/c", "srv/site/index", "srv/again", "var/log/x", "opt/", "untouched/file"),
)
SCRIPT_SAYS = """\
C /bin
C /bin/tool
C /etc
C /etc/group
C /etc/hosts
D /etc/issue
A /etc/linked
A /etc/new
C /etc/passwd
D /etc/shells
A /etc/shells.old
A /etc/symlink
C /opt
C /srv
C /srv/again
D /srv/site
C /usr
C /usr/share
D /usr/share/doc
"""


def test_each_kind_of_change(stage, tmp_path):
    made = [layer(stage, tmp_path, "low", BELOW)]
    with writing(made, str(tmp_path / "run")) as (merged, upper):
        before = of(merged)
        script(merged)
        assert "".join(f"{kind} {path}\n" for kind, path in changes.changes(made, Writable(upper))) == SCRIPT_SAYS
        assert listed(made, upper) == compared(before, of(merged))


def test_nothing_changed_is_an_empty_list(stage, tmp_path):
    made = [layer(stage, tmp_path, "low", BELOW)]
    with writing(made, str(tmp_path / "run")) as (merged, upper):
        os.utime(os.path.join(merged, "etc"))  # the time of a folder is nobody's change
        os.close(os.open(os.path.join(merged, "etc/hosts"), os.O_RDWR))
        assert os.listdir(upper) == ["etc"]
        assert listed(made, upper) == set()


def test_the_same_size_and_time_is_not_the_same_content(stage, tmp_path):
    made = [layer(stage, tmp_path, "low", ["a"])]
    with writing(made, str(tmp_path / "run")) as (merged, upper):
        status = os.stat(f"{merged}/a")
        with open(f"{merged}/a", "r+") as file:
            file.write("That")
        os.utime(f"{merged}/a", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert listed(made, upper) == {("C", "/a")}


def test_what_lower_layers_deleted_is_no_longer_there(stage, tmp_path):
    low = layer(stage, tmp_path, "low", ["etc/a", "etc/b", "doc/x", "srv/x"])
    with writing([low], str(tmp_path / "one")) as (merged, upper):
        os.unlink(f"{merged}/etc/a")
        shutil.rmtree(f"{merged}/doc")
        shutil.rmtree(f"{merged}/srv")
        os.mkdir(f"{merged}/srv")
        made = [low, layers.from_folder(stage, upper, overlay=True)]
    with writing(made, str(tmp_path / "two")) as (merged, upper):
        for name in ("etc/a", "srv/x"):
            with open(f"{merged}/{name}", "w") as file:
                file.write("made anew")
        os.makedirs(f"{merged}/doc/y")
        os.unlink(f"{merged}/etc/b")
        said = {("A", "/etc/a"), ("D", "/etc/b"), ("C", "/etc"), ("A", "/srv/x"), ("C", "/srv"), ("A", "/doc")}
        assert listed(made, upper) == {*said, ("A", "/doc/y")}


def test_what_the_backend_mounts_on_is_nobodys_change(stage, tmp_path):
    made = [layer(stage, tmp_path, "low", ["etc/hosts", "run/", "srv/data/"])]
    with writing(made, str(tmp_path / "run")) as (merged, upper):
        for name in ("proc", "run/vmctl", "srv/data/deep/er", "mnt/with"):
            os.makedirs(f"{merged}/{name}")
        for name in ("etc/resolv.conf", "mnt/with/something", "srv/file"):
            open(f"{merged}/{name}", "w").close()
        os.symlink("srv", f"{merged}/link")
        own = ("/proc", "/run/vmctl", "/srv/data/deep/er", "/mnt/with", "/etc/resolv.conf", "/link/file", "/absent")
        said = {("A", "/mnt"), ("A", "/mnt/with"), ("A", "/mnt/with/something"), ("A", "/link")}
        assert listed(made, upper, *own) == said
        assert changes.own(made, Writable(upper, own)) == {
            *("proc", "run/vmctl", "srv/data/deep/er", "srv/data/deep", "etc/resolv.conf", "srv/file"),
        }


def test_a_mount_point_that_the_image_has_is_compared_as_any(stage, tmp_path):
    made = [layer(stage, tmp_path, "low", ["proc/", "etc/hosts"])]
    with writing(made, str(tmp_path / "run")) as (merged, upper):
        os.chmod(f"{merged}/proc", 0o700)
        open(f"{merged}/etc/hosts", "w").close()
        assert listed(made, upper, "/proc", "/etc/hosts") == {("C", "/proc"), ("C", "/etc"), ("C", "/etc/hosts")}


def test_names_that_are_no_text(stage, tmp_path):
    made = [layer(stage, tmp_path, "low", ["a\udcff", "line\nfeed", "same"])]
    with writing(made, str(tmp_path / "run")) as (merged, upper):
        os.unlink(f"{merged}/a\udcff")
        with open(f"{merged}/line\nfeed", "a") as file:
            file.write("x")
        os.mkdir(f"{merged}/\udcfe")
        assert listed(made, upper) == {("D", "/a\udcff"), ("C", "/line\nfeed"), ("A", "/\udcfe")}


def test_a_deep_tree(stage, tmp_path):
    made = [layer(stage, tmp_path, "low", ["a/x"])]
    with writing(made, str(tmp_path / "run")) as (merged, upper):
        for depth in range(2, 351):  # os.makedirs calls itself
            os.mkdir(merged + "/a" * depth)
        assert listed(made, upper) == {("C", "/a"), *(("A", "/a" * depth) for depth in range(2, 351))}
        deep = layers.from_folder(stage, upper, overlay=True)
    with lookup.View([*made, deep]) as view:
        assert view.find("/a" * 350) is not None
    filetree.remove_tree(str(tmp_path / "run"))  # pytest's own removal calls itself


@pytest.mark.parametrize("seed", range(8))
def test_random_trees_random_changes(stage, tmp_path, seed):
    """Our list contains all differences, and the layer made from it shows the same tree."""
    chance = random.Random(seed)
    (tmp_path / "low").mkdir()
    for _ in range(60):
        step(chance, str(tmp_path / "low"))
    made = [layers.from_folder(stage, str(tmp_path / "low"))]
    for number in range(3):
        with writing(made, str(tmp_path / f"run{number}")) as (merged, upper):
            before = of(merged)
            for _ in range(40):
                step(chance, merged)
            after = of(merged)
            assert listed(made, upper) == compared(before, after)
            made.append(layers.from_folder(stage, upper, overlay=True))
        with mounted(Image("x", "", "", tuple(made), ImageConfig(), "")) as root:
            assert without_links(of(root)) == without_links(after)


def without_links(tree):
    """Leave out how many names a file has: overlayfs counts those of the lower layers differently."""
    return {path: (*facts[:4], *facts[5:]) for path, facts in tree.items()}


def step(chance, root):
    """Do one thing to a tree."""
    everything = sorted(path for path in of(root) if path != ".")
    folders = [root, *(f"{root}/{path}" for path in everything if is_folder(f"{root}/{path}"))]
    new = os.path.join(chance.choice(folders), chance.choice("abcdefg") + chance.choice(("", " x", "\udcff")))
    old = f"{root}/{chance.choice(everything)}" if everything else None
    act = chance.choice(STEPS)
    if act in MAKE and not os.path.lexists(new):
        act(chance, new)
    elif act in LINK and old and not os.path.lexists(new) and not is_folder(old):
        act(old, new)
    elif act in CHANGE and old:
        act(chance, old)


def is_folder(path):
    return os.path.isdir(path) and not os.path.islink(path)


def write(chance, path, mode="wb"):
    if mode == "wb" or stat.S_ISREG(os.lstat(path).st_mode):
        with open(path, mode) as file:
            file.write(chance.randbytes(chance.choice((0, 1, 100, 4096, 70_000))))


def append(chance, path):
    write(chance, path, "ab")


def folder(chance, path):
    os.mkdir(path, chance.choice((0o755, 0o700, 0o1777)))


def symlink(chance, path):
    os.symlink(chance.choice(("a", "../b", "/c/d", "nowhere")), path)


def node(chance, path):
    os.mknod(path, chance.choice((stat.S_IFIFO, stat.S_IFCHR)) | 0o644, os.makedev(1, chance.choice((3, 5))))


def chmod(chance, path):
    if not os.path.islink(path):
        os.chmod(path, chance.choice((0o600, 0o755, 0o4755, 0o2711)))


def chown(chance, path):
    os.chown(path, chance.choice((0, 7, 70_000)), chance.choice((0, 8)), follow_symlinks=False)


def xattr(chance, path):
    if stat.S_ISREG(os.lstat(path).st_mode) or is_folder(path):
        os.setxattr(path, chance.choice(("user.a", "trusted.b")), chance.randbytes(chance.choice((0, 5))))


def capability(_, path):
    if stat.S_ISREG(os.lstat(path).st_mode):
        os.setxattr(path, "security.capability", CAPABILITY)


def touch(chance, path):
    os.utime(path, ns=(1, chance.randrange(2**60)), follow_symlinks=False)


def delete(_, path):
    shutil.rmtree(path) if is_folder(path) else os.unlink(path)


def renew(chance, path):
    """Delete, and make something of the same name."""
    delete(chance, path)
    chance.choice(MAKE)(chance, path)


MAKE = [write, write, folder, folder, symlink, node]
LINK = [os.link, os.rename]
CHANGE = [append, chmod, chown, xattr, capability, touch, delete, renew, renew]
STEPS = [*MAKE, *LINK, *CHANGE]
