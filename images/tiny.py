"""The image `tiny`: Debian's static busybox and the few files that programs expect; 2 MB."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from tempfile import TemporaryDirectory

from images import deb, erofs, store
from images.image import Image, ImageConfig
from vmctl.errors import UnavailableError
from vmctl.run import run, which

NAME = "tiny"
CONFIG = ImageConfig(cmd=("/bin/sh",))

_PT_INTERP = 3
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
    """Build `tiny` and return it. Raises UnavailableError where no static busybox can be had."""
    with TemporaryDirectory(prefix="vmctl-tiny-") as work:
        unpacked, version = _busybox_package(work)
        root = os.path.join(work, "root")
        # The package's own time, not that of the download: the same package gives the same image.
        mtime = _make_tree(root, unpacked, version)
        layer = erofs.build_layer(root)
    return store.add(NAME, [layer], CONFIG, created=store.timestamp(mtime))


def static_busybox() -> str | None:
    """Return the path of a busybox that needs no library, as installed on this host, or None."""
    for path in ("/bin/busybox", "/bin/busybox.static", which("busybox.static"), which("busybox")):
        if path and os.path.exists(path) and _is_static(path):
            return path
    return None


def _busybox_package(work: str) -> tuple[str, str]:
    """Return a folder with bin/busybox (and its licence, from Debian) and the version."""
    folder = os.path.join(work, "package")
    if deb.available():
        return folder, deb.fetch("busybox-static", folder)
    installed = static_busybox()
    if installed is None:
        raise UnavailableError("a static busybox is needed to build tiny", hint="install the package busybox-static")
    os.makedirs(os.path.join(folder, "bin"))
    shutil.copy2(installed, os.path.join(folder, "bin"))
    os.rename(os.path.join(folder, "bin", os.path.basename(installed)), os.path.join(folder, "bin/busybox"))
    return folder, run([installed])[1].split()[1]


def _make_tree(root: str, package: str, version: str) -> int:
    """Fill the folder `root` and return the time, in seconds since the epoch, that everything in it bears."""
    for folder in _FOLDERS:
        os.makedirs(os.path.join(root, folder))
    binary = deb.find(package, "busybox")
    shutil.copy2(binary, os.path.join(root, "bin/busybox"))
    _link_applets(root)
    for path, text in {**_FILES, "etc/os-release": _os_release(version)}.items():
        _write(os.path.join(root, path), text)
    licence = os.path.join(package, "usr/share/doc/busybox-static/copyright")
    if os.path.exists(licence):
        os.makedirs(os.path.join(root, "usr/share/doc/busybox-static"))
        shutil.copy2(licence, os.path.join(root, "usr/share/doc/busybox-static"))
    mtime = int(os.stat(binary).st_mtime)
    _normalise(root, mtime)
    return mtime


def _link_applets(root: str) -> None:
    """Make the links that `busybox --install -s` would, but relative: they also lead home from outside the root."""
    for applet in run([os.path.join(root, "bin/busybox"), "--list-full"])[1].split():
        folder, link = os.path.dirname(applet), os.path.join(root, applet)
        if folder and not os.path.lexists(link):  # without folder: `linuxrc`, for initrds of old
            os.makedirs(os.path.join(root, folder), exist_ok=True)
            os.symlink(os.path.relpath("bin/busybox", folder), link)


def _os_release(version: str) -> str:
    return f'ID=vmctl-tiny\nNAME="vmctl tiny"\nPRETTY_NAME="vmctl tiny (Debian busybox {version})"\n'


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _normalise(root: str, mtime: int) -> None:
    """Give everything one time and the usual permissions, whatever the umask of who builds."""
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


def _is_static(path: str) -> bool:
    """Return whether a 64-bit ELF file asks for no loader: none of its program headers is PT_INTERP; see elf(5)."""
    with open(path, "rb") as file:
        image = file.read()
    if not image.startswith(b"\x7fELF"):
        return False
    (start,), (size, count) = struct.unpack_from("=Q", image, 32), struct.unpack_from("=HH", image, 54)
    return all(struct.unpack_from("=I", image, start + index * size)[0] != _PT_INTERP for index in range(count))
