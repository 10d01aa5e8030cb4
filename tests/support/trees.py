"""What there is in a tree of files, to compare one with another."""

import os
import stat


def read(path):
    with open(path, "rb") as file:
        return file.read()


def facts(path):
    """Return all that a layer keeps of a file: type and mode, owners, device, content or target, attributes, time."""
    status = os.lstat(path)
    regular, link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
    content = read(path) if regular else os.readlink(path) if link else None
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
    }
    device = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
    links = status.st_nlink if regular else 1
    return status.st_mode, status.st_uid, status.st_gid, device, links, content, xattrs, status.st_mtime_ns


def of(root):
    """Return path -> facts of everything in a folder, and of itself as `.`."""
    found = {".": facts(root)}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = facts(path)
    return found
