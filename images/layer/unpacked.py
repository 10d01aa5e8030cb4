"""Layers as folders, for an ordinary user: the kernel mounts EROFS for the host's root only (mount(2), EPERM).

Each layer is unpacked once, for all instances of the user. Owners are the ids of the user's namespace. Whiteouts are
character devices 0/0, which everybody may make, and an opaque folder has the attribute that overlayfs reads with the
option `userxattr` (Linux: Documentation/filesystems/overlayfs.rst). Other devices of an image are left out: mknod(2)
refuses them, and nothing in a container could open them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from images.layer import writing
from images.layer.lookup import Inode, Reader
from images.layer.tree import OPAQUE, OPAQUE_OF_USERS
from images.store.image import ImageError, Layer
from vmctl import paths
from vmctl.linux import filetree, syscalls, usernamespace
from vmctl.linux.stdio import write_all
from vmctl.named import NamedTuple

_UNFINISHED, _LINKS = ".new", ".links"


def folder() -> str:
    """Return the folder of the unpacked layers; with only one id there are no owners, so they are other trees."""
    return os.path.join(paths.state_root(), "layers" if usernamespace.ids() > 1 else "layers-of-one-id")


def path(key: str) -> str:
    """Return the path of a layer, even if it is not unpacked."""
    return os.path.join(folder(), key[:12])


def unpack(layer: Layer) -> str:
    """Unpack a layer, unless that was done before, and return its folder; the caller has a lock. Raises OSError.

    The folder appears completely or not at all, also after a power failure. Raises ImageError if the file is damaged.
    """
    target = path(layer.key)
    if os.path.isdir(target):
        return target
    stage = target + _UNFINISHED
    for left in (stage, stage + _LINKS):  # by a command that was killed
        filetree.remove_tree(left)
    os.makedirs(os.path.dirname(stage), mode=0o700, exist_ok=True)
    unpack_into(layer.path, stage)
    os.rename(stage, target)
    return target


def unpack_into(path: str, target: str) -> None:
    """Unpack the file of a layer into the new folder `target`. Raises OSError, ImageError if the file is damaged."""
    os.mkdir(target, 0o700)
    reader = Reader(path)
    try:
        _Unpacking(reader, target).run()
    finally:
        reader.close()


def unused(needed: set[str]) -> list[str]:
    """Return the folders of layers whose keys are not among `needed`, and what killed commands have left."""
    names = {key[:12] for key in needed}
    with suppress(FileNotFoundError):
        return [os.path.join(folder(), name) for name in sorted(os.listdir(folder())) if name not in names]
    return []


class _Level(NamedTuple):
    """A folder that is being filled."""

    inode: Inode
    entries: Iterator[tuple[bytes, int]]


class _Unpacking:
    """One walk through a layer. Only the folder that is being filled is open, so a tree can be of any depth."""

    def __init__(self, reader: Reader, target: str) -> None:
        self._reader = reader
        self._target = target
        self._names: dict[int, str] = {}  # inode -> temporary name of a file with several names
        self._links = target + _LINKS

    def run(self) -> None:
        """Fill the target."""
        root = self._reader.root
        os.mkdir(self._links, 0o700)
        links = os.open(self._links, writing.FOLDER)
        here = os.open(self._target, writing.FOLDER)
        try:
            levels = [_Level(root, iter(self._reader.children(root).items()))]
            while levels:
                entry = next(levels[-1].entries, None)
                if entry is None:
                    done = levels.pop()
                    here = self._leave(here, done.inode, links, is_root=not levels)
                    continue
                name, inode = entry[0], self._reader.inode(entry[1])
                if stat.S_ISDIR(inode.attributes.mode):
                    os.mkdir(name, 0o700, dir_fd=here)
                    here = writing.moved(here, name)
                    levels.append(_Level(inode, iter(self._reader.children(inode).items())))
                else:
                    self._leaf(name, inode, here, links)
            syscalls.syncfs(links)
        finally:
            os.close(here)
            os.close(links)

    def _leave(self, here: int, inode: Inode, links: int, *, is_root: bool) -> int:
        """Give a folder, now complete, its attributes; return a descriptor of the folder above."""
        if is_root:
            for name in self._names.values():
                os.unlink(name, dir_fd=links)
            os.rmdir(self._links)
        self._describe(here, inode)
        return here if is_root else writing.moved(here, b"..")

    def _leaf(self, name: bytes, inode: Inode, here: int, links: int) -> None:
        kept = self._names.get(inode.number)
        if kept is not None:
            os.link(kept, name, src_dir_fd=links, dst_dir_fd=here, follow_symlinks=False)
            return
        mode = inode.attributes.mode
        if stat.S_ISREG(mode):
            fd = os.open(name, writing.NEW_FILE, 0o600, dir_fd=here)
            try:
                for part in self._reader.content(inode):
                    write_all(fd, part)
                self._describe(fd, inode)
            finally:
                os.close(fd)
        elif not self._special(name, inode, here):
            return
        if inode.links > 1:
            self._names[inode.number] = str(inode.number)
            os.link(name, self._names[inode.number], src_dir_fd=here, dst_dir_fd=links, follow_symlinks=False)

    def _special(self, name: bytes, inode: Inode, here: int) -> bool:
        """Make a link, FIFO or whiteout; return False for what cannot be made."""
        mode = inode.attributes.mode
        if stat.S_ISLNK(mode):
            os.symlink(b"".join(self._reader.content(inode)), name, dir_fd=here)
        elif stat.S_ISFIFO(mode):
            os.mkfifo(name, 0o600, dir_fd=here)
        elif stat.S_ISCHR(mode) and inode.address == 0:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=here)
            return True  # a whiteout has no attributes
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            return False
        else:
            raise ImageError(f"the layer has a file of unknown kind: {os.fsdecode(name)!a}")
        writing.describe_name(name, inode.attributes, here)
        return True

    def _describe(self, fd: int, inode: Inode) -> None:
        """Set the attributes of an open file or folder."""
        if OPAQUE in inode.attributes.xattrs:
            os.setxattr(fd, OPAQUE_OF_USERS, b"y")
        writing.describe(fd, inode.attributes)
