"""Paths inside an image, which may have links that mean harm.

Its ordinary links lead into the image, since the root has been changed. Those of /proc (/proc/self/fd/7) lead to
whatever a descriptor stands for, for instance the host's root; so none of them is followed: RESOLVE_NO_MAGICLINKS of
openat2(2). What is missing is made relative to a folder already reached, so that nothing can be exchanged meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat

from vmctl.errors import SpecError
from vmctl.linux.syscalls import RESOLVE_NO_MAGICLINKS, openat2

# execve(2): how far the kernel follows, and reads for, the first line of a script
_MAX_INTERPRETERS, _SHEBANG_BYTES = 5, 256


def reach(path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Return a descriptor of what stands at an absolute path. Raises SpecError for a way out, else OSError."""
    try:
        return openat2(path, flags | os.O_CLOEXEC, mode, RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SpecError(f"the path {path} leads out of the image, or in circles") from None
        raise


def folder(path: str) -> int:
    """Return a descriptor of a folder, made with those above it where it is missing."""
    try:
        return reach(path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        above, name = os.path.split(path.rstrip("/"))
        parent = folder(above)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        finally:
            os.close(parent)
    return reach(path, os.O_PATH | os.O_DIRECTORY)


def file(path: str) -> int:
    """Return a descriptor of a file to write, empty, made with the folders above it where it is missing."""
    os.close(folder(os.path.dirname(path)))
    return reach(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


def place(path: str, *, is_folder: bool) -> int:
    """Return a descriptor of something to mount on: what is there, else a new folder or empty file."""
    try:
        return reach(path)
    except FileNotFoundError:
        if is_folder:
            return folder(path)
        os.close(file(path))
        return reach(path)


def check_program(path: str) -> None:
    """Raise SpecError where executing `path` would execute something that is not the image's.

    A script that begins with #!/proc/self/exe, or a link to it, would run the host's interpreter, which this process is
    until then, and the workload could write to that file (CVE-2019-5736). To be asked as root: what its user may not
    read can be executed all the same.
    """
    for _ in range(_MAX_INTERPRETERS):
        try:
            program = reach(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return  # not there, or not to be opened: execve says so better
        try:
            head = os.read(program, _SHEBANG_BYTES) if stat.S_ISREG(os.fstat(program).st_mode) else b""
        finally:
            os.close(program)
        interpreter = head[2:].split(b"\n")[0].split()
        if not head.startswith(b"#!") or not interpreter:
            return
        path = os.fsdecode(interpreter[0])
