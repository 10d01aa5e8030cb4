"""Open paths inside an image, which may contain malicious links.

Ordinary links lead into the image, because the root has been changed. Magic links in /proc, such as /proc/self/fd/7,
lead to the file that the descriptor refers to, for instance the host's root. They are never followed:
RESOLVE_NO_MAGICLINKS of openat2(2). Missing files are created relative to an open folder, so that it cannot be replaced
meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress

from images.store.image import TMP
from vmctl import trace
from vmctl.errors import SpecError
from vmctl.linux import syscalls
from vmctl.linux.syscalls import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, file_system, openat2
from vmctl.spec.workload import File

# execve(2): how many interpreters the kernel follows, and how much it reads of the first line of a script
_MAX_INTERPRETERS, _SHEBANG_BYTES = 5, 256

# proc, sysfs, cgroup, cgroup2, mqueue (linux/magic.h)
OF_KERNEL = (0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x19800202)


def import_nothing() -> None:
    """Refuse all imports from now on: inside, the paths of the host's modules are the image's (CVE-2019-14271)."""
    sys.meta_path.clear()


def refuse_links() -> None:
    """Raise SpecError if a mount point is a link: the mount would land at its target."""
    for path in ("/proc", "/dev", "/sys"):
        if os.path.islink(path):
            raise SpecError(f"{path} in the image is a symbolic link; it must be a folder")


def refuse_read_only(root: str) -> None:
    """Raise OSError if the kernel mounted the overlay read-only: it does that if it cannot create the work folder."""
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        raise OSError(errno.ENOSPC, "the writable layer cannot be created, most likely because the disk is full", root)


def reach(path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open an absolute path; return a descriptor. Raises SpecError if it leads out of the image, else OSError."""
    try:
        return openat2(path, flags | os.O_CLOEXEC, mode, RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SpecError(f"the path {path} leads out of the image, or its links form a loop") from None
        raise


def folder(path: str) -> int:
    """Return a descriptor of a folder; it and its parents are created if they are missing."""
    try:
        return reach(path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        above, name = os.path.split(os.path.normpath(path))  # else a missing folder `.` would be made
        parent = folder(above)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        finally:
            os.close(parent)
    return reach(path, os.O_PATH | os.O_DIRECTORY)


def existing_folder(path: str) -> int:
    """Return a descriptor of a folder. Raises SpecError if it does not exist."""
    try:
        return reach(path, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else "it is not a folder"
        raise SpecError(f"the folder {path} cannot be entered: {reason}") from None


def file(path: str) -> int:
    """Return a descriptor of an empty file to write; it and its parent folders are created if they are missing.

    Raises SpecError if something else is there: a FIFO would block, and /proc is the kernel's.
    """
    os.close(folder(os.path.dirname(path)))
    try:
        fd = reach(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO without a reader, or a socket
            raise _special(path) from None
        raise
    try:
        _refuse_special(fd, path)
        os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def content(path: str, most_bytes: int) -> bytes:
    """Return the content of a file, nothing if it does not exist.

    Raises SpecError if it is not an ordinary file or larger than `most_bytes`: a FIFO would block, /dev/zero has no
    end, and files of the kernel (/proc) are not the image's.
    """
    try:
        fd = reach(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        _refuse_special(fd, path)
        found = b""
        while part := os.read(fd, most_bytes + 1 - len(found)):
            found += part
        if len(found) > most_bytes:
            raise SpecError(f"{path} in the image has more than {most_bytes >> 20} MiB")
        return found
    finally:
        os.close(fd)


def _refuse_special(fd: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode) or file_system(fd) in OF_KERNEL:
        raise _special(path)


def _special(path: str) -> SpecError:
    return SpecError(f"{path} in the image is not an ordinary file")


def make_read_only(workdir: str) -> None:
    """Make the root read-only, but for what is mounted in it; the working directory is created before."""
    os.close(folder(workdir))
    flags = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount(None, "/", None, flags)


def mount_point(path: str, *, is_folder: bool) -> int:
    """Return a descriptor of a mount point: the existing file or folder, else a new one. Raises SpecError."""
    try:
        found = reach(path)
    except FileNotFoundError:
        if is_folder:
            return folder(path)
        os.close(file(path))
        return reach(path)
    if stat.S_ISDIR(os.fstat(found).st_mode) != is_folder:
        os.close(found)
        source, target = ("folder", "file") if is_folder else ("file", "folder")
        raise SpecError(
            f"a {source} cannot be mounted on {path}, which is a {target} in the instance", hint="use another target"
        )
    return found


def provide(files: Iterable[File], folders: Iterable[str], *, read_only: bool) -> None:
    """Make what an image leaves to the runtime, after the volumes, which win; the files are kept in /dev."""
    with suppress(OSError):  # it is there, or the root cannot be written
        os.mkdir(TMP, 0o1777)
    for path in folders:
        with suppress(OSError, SpecError):  # something else is there
            os.close(folder(path))
    for file in files:
        cover(file.path, file.content, f"/dev/.{os.path.basename(file.path)}", read_only=read_only)


def cover(path: str, content: str, source: str, *, read_only: bool) -> None:
    """Hide a file of the image behind the new file `source`, which gets the content.

    A missing file is created, unless the content is empty. Anything else than an ordinary file in the root's own mount
    is left alone: a device, a folder, a file of a volume, or a link to one of them.
    """
    with suppress(OSError):
        target = _ordinary(path, create=bool(content))
        try:
            if stat.S_ISREG(os.fstat(target).st_mode):
                _mount_file(target, content, source, read_only=read_only)
                if trace.on:
                    closed = f"; mount -o remount,bind,ro {path}" if read_only else ""
                    trace.step(f"touch {source}; mount --bind {source} {path}{closed}")
        finally:
            os.close(target)


def _ordinary(path: str, *, create: bool) -> int:
    """Return a descriptor of a file in the root's own mount."""
    resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    try:
        return openat2(path, os.O_PATH | os.O_CLOEXEC, 0, resolve)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(path), 0o755)
    return openat2(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, resolve)


def _mount_file(target: int, content: str, source: str, *, read_only: bool) -> None:
    fd = os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.write(fd, content.encode())
    os.close(fd)
    tree = syscalls.open_tree(source, recursive=False)
    try:
        if read_only:
            syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_RDONLY)
        syscalls.move_mount(tree, target)
    finally:
        os.close(tree)


def check_program(path: str) -> None:
    """Raise SpecError if executing `path` would execute a file that is not in the image.

    A script that begins with #!/proc/self/exe, or with a link to it, would run the host's Python interpreter, which
    this process is until execve(2), and the workload could write to that file (CVE-2019-5736). Call it as root: a user
    can execute a file without being able to read it.
    """
    for _ in range(_MAX_INTERPRETERS):
        try:
            program = reach(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return  # it does not exist or cannot be opened: execve(2) returns the better error
        try:
            head = os.read(program, _SHEBANG_BYTES) if stat.S_ISREG(os.fstat(program).st_mode) else b""
        finally:
            os.close(program)
        interpreter = head[2:].split(b"\n")[0].split()
        if not head.startswith(b"#!") or not interpreter:
            return
        path = os.fsdecode(interpreter[0])
