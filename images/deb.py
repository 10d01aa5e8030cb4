"""Debian packages without installing them: fetched and unpacked into a folder."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

from vmctl.errors import NotFoundError, UnavailableError
from vmctl.run import CommandError, run, which


def available() -> bool:
    """Return whether this host can fetch and unpack Debian packages."""
    return which("apt-get") is not None and which("dpkg-deb") is not None


def fetch(package: str, folder: str) -> str:
    """Unpack the newest version of a package into `folder` and return the version.

    The signature is checked by apt-get(8), which also knows mirrors and proxies. Raises UnavailableError where
    packages cannot be had: not Debian, no network, package lists never fetched.
    """
    if not available():
        raise UnavailableError(f"the Debian package {package} cannot be fetched here", hint="apt-get is not installed")
    with TemporaryDirectory(prefix="vmctl-deb-") as work:
        try:
            # apt's own unprivileged user could not write into a folder of ours
            run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=work, timeout_s=600)
        except CommandError as error:
            raise UnavailableError(
                f"the Debian package {package} could not be fetched",
                hint="is the network there? has `apt-get update` been run?",
                detail=error.output,
            ) from error
        archive = os.path.join(work, os.listdir(work)[0])
        run(["dpkg-deb", "-x", archive, folder], timeout_s=600)
        return run(["dpkg-deb", "-f", archive, "Version"])[1].strip()


def dependency(package: str, prefix: str) -> str:
    """Return the package beginning with `prefix` that the newest version of `package` depends on."""
    output = run(["apt-cache", "depends", "--important", package], check=False)[1]
    for line in output.splitlines():
        relation, _, name = line.strip().partition(": ")
        if relation == "Depends" and name.startswith(prefix):
            return name
    raise NotFoundError(f"the Debian package {package} is not known to apt", hint="run `apt-get update`")


def find(folder: str, name: str) -> str:
    """Return the path of a program in an unpacked package. Raises NotFoundError."""
    for place in ("bin", "usr/bin", "sbin", "usr/sbin"):
        path = os.path.join(folder, place, name)
        if os.path.exists(path):
            return path
    raise NotFoundError(f"{name} is not in the package unpacked in {folder}")
