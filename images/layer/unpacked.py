"""Layers as folders, for an ordinary user: the kernel mounts EROFS for the host's root only (mount(2), EPERM).

Each layer is unpacked once, for all instances of the user. Owners are the ids of the user's namespace. Whiteouts are
character devices 0/0, which everybody may make, and an opaque folder has the attribute that overlayfs reads with the
option `userxattr` (Linux: Documentation/filesystems/overlayfs.rst). Other devices of an image are left out: mknod(2)
refuses them, and nothing in a container could open them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from images.layer.lookup import Inode, Reader
from images.layer.tree import OPAQUE, OPAQUE_OF_USERS
from images.store.image import ImageError, Layer
from vmctl import paths
from vmctl.linux import filetree, syscalls, usernamespace
from vmctl.linux.stdio import write_all
from vmctl.named import NamedTuple

_NOBODY = 65534  # the id shown for all others (user_namespaces(7), overflowuid)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED, _LINKS = ".new", ".links"
_REFUSED = (errno.EPERM, errno.EINVAL, errno.ENOTSUP)


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
    os.makedirs(stage, mode=0o700)
    reader = Reader(layer.path)
    try:
        _Unpacking(reader, stage).run()
    finally:
        reader.close()
    os.rename(stage, target)
    return target


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
        self._ids = usernamespace.ids()
        self._names: dict[int, str] = {}  # inode -> temporary name of a file with several names
        self._links = target + _LINKS

    def run(self) -> None:
        """Fill the target."""
        root = self._reader.root
        os.mkdir(self._links, 0o700)
        links = os.open(self._links, _FOLDER)
        here = os.open(self._target, _FOLDER)
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
                    here = _moved(here, name)
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
        return here if is_root else _moved(here, b"..")

    def _leaf(self, name: bytes, inode: Inode, here: int, links: int) -> None:
        kept = self._names.get(inode.number)
        if kept is not None:
            os.link(kept, name, src_dir_fd=links, dst_dir_fd=here, follow_symlinks=False)
            return
        mode = inode.attributes.mode
        if stat.S_ISREG(mode):
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=here)
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
        self._describe_name(name, inode, here)
        return True

    def _owner(self, inode: Inode) -> tuple[int, int]:
        known = inode.attributes
        if self._ids == 1:
            return 0, 0
        return tuple(number if number < self._ids else _NOBODY for number in (known.uid, known.gid))  # type: ignore[return-value]

    def _describe(self, fd: int, inode: Inode) -> None:
        """Set the attributes of an open file or folder."""
        known = inode.attributes
        os.fchown(fd, *self._owner(inode))
        os.fchmod(fd, stat.S_IMODE(known.mode))  # after the owner, whose change takes setuid away
        for name, value in known.xattrs.items():
            if not name.startswith(("trusted.", "user.overlay.")):
                _set_attribute(fd, name, value)
        if OPAQUE in known.xattrs:
            os.setxattr(fd, OPAQUE_OF_USERS, b"y")
        os.utime(fd, ns=(known.mtime_ns, known.mtime_ns))

    def _describe_name(self, name: bytes, inode: Inode, here: int) -> None:
        """Set the attributes of a link or FIFO, which are not opened."""
        known = inode.attributes
        os.chown(name, *self._owner(inode), dir_fd=here, follow_symlinks=False)
        if not stat.S_ISLNK(known.mode):
            os.chmod(name, stat.S_IMODE(known.mode), dir_fd=here)
        os.utime(name, ns=(known.mtime_ns, known.mtime_ns), dir_fd=here, follow_symlinks=False)


def _moved(here: int, name: bytes) -> int:
    """Return a descriptor of another folder, relative to one that is closed."""
    try:
        return os.open(name, _FOLDER, dir_fd=here)
    finally:
        os.close(here)


def _set_attribute(fd: int, name: str, value: bytes) -> None:
    """Set an attribute, unless only the host's root may: a label of a security module, or an ACL for an id not ours."""
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
