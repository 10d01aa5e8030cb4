"""The image `tiny`: Debian's static busybox and the few files that programs expect; 2 MB."""

from __future__ import annotations

import os
import shutil
import stat

from images.layer import layers
from images.packages import busybox
from images.store import store
from images.store.image import Image, ImageConfig
from images.store.staging import staging
from vmctl.programs import run

NAME = "tiny"
CONFIG = ImageConfig(cmd=("/bin/sh",))

_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr/bin", "usr/sbin", "var")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    # filled, or mounted over, for each instance
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "",
    "etc/resolv.conf": "",
}


def build() -> Image:
    """Build `tiny` from the newest busybox and return it. Raises UnavailableError if there is no busybox."""
    from tempfile import TemporaryDirectory

    program = busybox.fetch()
    # The program's time, not the build's: the same package gives the same image.
    mtime = int(os.stat(program).st_mtime)
    with TemporaryDirectory(prefix="vmctl-tiny-") as root, staging() as stage:
        _fill(root, program)
        _normalise(root, mtime)
        layer = layers.from_folder(stage, root)
        config = store.config_document([layer], CONFIG, store.timestamp(mtime))
        return store.add(stage, NAME, [layer], config)


def _fill(root: str, program: str) -> None:
    for folder in _FOLDERS:
        os.makedirs(os.path.join(root, folder))
    for path, text in {**_FILES, "etc/os-release": _os_release(program)}.items():
        with open(os.path.join(root, path), "w", encoding="utf-8") as file:
            file.write(text)
    shutil.copyfile(program, os.path.join(root, "bin/busybox"))
    os.chmod(os.path.join(root, "bin/busybox"), 0o755)
    _link_applets(root)
    if licence := busybox.licence():
        os.makedirs(os.path.join(root, "usr/share/doc/busybox"))
        shutil.copyfile(licence, os.path.join(root, "usr/share/doc/busybox/copyright"))


def _link_applets(root: str) -> None:
    """Make the links that `busybox --install -s` would, but relative: they also lead home from outside the root."""
    for applet in run([os.path.join(root, "bin/busybox"), "--list-full"])[1].split():
        folder, link = os.path.dirname(applet), os.path.join(root, applet)
        if folder and not os.path.lexists(link):  # without folder: `linuxrc`, for initrds of old
            os.makedirs(os.path.join(root, folder), exist_ok=True)
            os.symlink(os.path.relpath("bin/busybox", folder), link)


def _os_release(program: str) -> str:
    banner = run([program])[1].partition(" multi-call")[0]  # "BusyBox v1.35.0 (Debian 1:1.35.0-4)"
    return f'ID=vmctl-tiny\nNAME="vmctl tiny"\nPRETTY_NAME="vmctl tiny, made of {banner}"\n'


def _normalise(root: str, mtime: int) -> None:
    """Give everything one time and the usual permissions, independent of the umask."""
    for folder, folders, files in os.walk(root, topdown=False):
        for path in (os.path.join(folder, name) for name in (*files, *folders)):
            if not os.path.islink(path):
                executable = os.path.isdir(path) or os.stat(path).st_mode & stat.S_IXUSR
                os.chmod(path, 0o755 if executable else 0o644)
            os.utime(path, (mtime, mtime), follow_symlinks=False)
    os.chmod(os.path.join(root, "tmp"), 0o1777)
    os.chmod(os.path.join(root, "root"), 0o700)
    os.chmod(root, 0o755)
    os.utime(root, (mtime, mtime))
