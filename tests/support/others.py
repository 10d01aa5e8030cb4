"""Images made by other people's tools."""

import os
import struct
from functools import partial

from vmctl.programs import run

_QUICK = {"timeout_s": 120}


def umoci(*words):
    return run(["umoci", *map(str, words)], **_QUICK)[1]


def skopeo(*words):
    return run(["skopeo", *map(str, words)], **_QUICK)[1]


class Buildah:
    """buildah with a separate storage and without namespaces, as it runs in a container."""

    def __init__(self, folder):
        os.makedirs(folder)
        conf = folder / "storage.conf"
        conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
        self.env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(conf), "BUILDAH_ISOLATION": "chroot"}

    def __call__(self, *words):
        return run(["buildah", *map(str, words)], env=self.env, **_QUICK)[1].strip()

    def commit(self, base, change, name, *config):
        """Make an image of a base (`scratch`, or one made before): `change(root)` changes its files."""
        container = self("from", "--pull-never", base)
        change(self("mount", container))
        self("umount", container)
        if config:
            self("config", *config, container)
        self("commit", "--quiet", container, name)
        self("rm", container)


def write(root, path, content=b"", *, mode=0o644, owner=(0, 0), mtime=1_600_000_000.0):
    full = os.path.join(root, path)
    with open(full, "wb") as file:
        file.write(content)
    os.chown(full, *owner)
    os.chmod(full, mode)
    os.utime(full, (mtime, mtime))
    return full


def fill_base(root):
    """Put one of each kind of file that images have into a folder."""
    for name in ("bin", "etc", "gone", "replaced", "opaque/inner", "d" * 200):
        os.makedirs(os.path.join(root, name))
    put = partial(write, root)
    put("bin/sh", b"\x7fELF" + os.urandom(70_000), mode=0o755)
    put("bin/su", b"setuid", mode=0o4755)
    put("bin/wall", b"setgid", mode=0o2755, owner=(0, 5))
    capable = put("bin/ping", b"capable", mode=0o755)
    # vfs_cap_data of linux/capability.h, revision 2, effective: cap_net_raw
    os.setxattr(capable, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    noted = put("etc/owned", b"far away", owner=(100_000, 4_000_000_000))
    os.setxattr(noted, "user.note", b"\0\xff kept")
    put("etc/fraction", b"time", mtime=1_600_000_000.123456)
    put("etc/replaced-later", b"old")
    put("gone/one")
    put("opaque/hidden", b"hidden")
    put("opaque/inner/hidden", b"hidden")
    put("replaced/inside", b"inside")
    put("d" * 200 + "/" + "f" * 250, b"long names")
    put("etc/empty")
    with open(os.path.join(root, "etc/sparse"), "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"middle")
    os.link(os.path.join(root, "etc/owned"), os.path.join(root, "etc/linked"))
    os.symlink("../bin/sh", os.path.join(root, "etc/link"))
    os.symlink("/etc/" + "x" * 300, os.path.join(root, "etc/long-link"))
    os.mkfifo(os.path.join(root, "etc/fifo"))
    os.mknod(os.path.join(root, "etc/null"), 0o020666, os.makedev(1, 3))
    os.mknod(os.path.join(root, "etc/disk"), 0o060660, os.makedev(259, 70_000))
    os.mkdir(os.path.join(root, "tmp"))
    os.chmod(os.path.join(root, "tmp"), 0o1777)


def change_base(root):
    """Change what `fill_base` has made: delete, replace, add, and turn one kind of file into another."""
    for name in ("gone/one", "etc/link", "opaque/hidden", "opaque/inner/hidden", "replaced/inside", "etc/empty"):
        os.unlink(os.path.join(root, name))
    for name in ("gone", "opaque/inner", "opaque", "replaced"):
        os.rmdir(os.path.join(root, name))
    os.mkdir(os.path.join(root, "opaque"))
    write(root, "opaque/new", b"new")
    write(root, "replaced", b"a file where a folder was")
    os.mkdir(os.path.join(root, "etc/empty"))
    os.unlink(os.path.join(root, "etc/replaced-later"))
    write(root, "etc/replaced-later", b"new", mode=0o600, owner=(7, 8))
    os.chmod(os.path.join(root, "etc/owned"), 0o400)
    os.link(os.path.join(root, "bin/su"), os.path.join(root, "bin/su2"))
