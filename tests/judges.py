"""Programs of other people that say whether what we made is right."""

import fcntl
import os
import sys

from images import deb
from vmctl.run import run

_CACHE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".cache")


def cloud_init(*arguments):
    """Return (code, output) of Debian's cloud-init, which is unpacked and not installed: installed, it would take the
    host for a cloud's at the next boot. `cloud_init("schema", "--config-file", FILE)` judges user-data.
    """
    package = _unpacked("cloud-init")
    environment = {**os.environ, "PYTHONPATH": os.path.join(package, "usr/lib/python3/dist-packages")}
    program = [sys.executable, os.path.join(package, "usr/bin/cloud-init"), *arguments]
    code, output, errors = run(program, env=environment, check=False)
    return code, output + errors


def cpio_list(archive):
    """Return the lines of `cpio -tv` for an archive."""
    with open(archive, "rb") as file:
        return run(["cpio", "-itv", "--quiet", "--numeric-uid-gid"], stdin=file.read())[1].splitlines()


def cpio_read(archive, name):
    """Return the text of one file in an archive."""
    with open(archive, "rb") as file:
        return run(["cpio", "-i", "--quiet", "--to-stdout", name], stdin=file.read())[1]


def _unpacked(package):
    folder = os.path.join(_CACHE, package)
    os.makedirs(_CACHE, exist_ok=True)
    with open(os.path.join(_CACHE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(folder):
            os.makedirs(folder + ".new", exist_ok=True)
            deb.fetch(package, folder + ".new")
            os.rename(folder + ".new", folder)
    return folder
