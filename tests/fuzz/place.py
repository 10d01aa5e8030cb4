"""Files for the parsers that read files: below VMCTL_ROOT, which has to be set."""

import os


def file(name, data):
    """Write a file and return its path."""
    path = os.path.join(os.environ["VMCTL_ROOT"], name)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return file(name, data)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    return path


def memory(data):
    """Return an open file in memory that contains the data."""
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    opened = os.fdopen(fd, "w+b")
    opened.write(data)
    opened.seek(0)
    return opened
