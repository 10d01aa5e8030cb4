"""Fetches Debian packages and unpacks them into a folder, without installing them."""

from __future__ import annotations

import os
from shutil import rmtree

from images.store import store
from vmctl.errors import UnavailableError
from vmctl.linux import durable
from vmctl.programs import CommandError, run, which


def available() -> bool:
    """Return whether this host can fetch and unpack Debian packages."""
    return which("apt-get") is not None and which("dpkg-deb") is not None


def fetch(package: str, folder: str) -> None:
    """Unpack the newest version of a package into `folder`.

    apt-get(8) verifies the signature and uses the configured mirrors and proxies. Raises UnavailableError if the
    package cannot be fetched: the host is not Debian, has no network, or never fetched the package lists.
    """
    from tempfile import TemporaryDirectory

    if not available():
        raise UnavailableError(f"the Debian package {package} cannot be fetched", hint="this host has no apt-get")
    with TemporaryDirectory(prefix="vmctl-deb-") as work:
        try:
            # apt's unprivileged user _apt cannot write into this folder
            run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=work, timeout_s=600)
        except CommandError as error:
            raise UnavailableError(
                f"the Debian package {package} could not be fetched",
                hint="check the network, or run `apt-get update`",
                detail=error.output,
            ) from error
        run(["dpkg-deb", "-x", os.path.join(work, os.listdir(work)[0]), folder], timeout_s=600)


def unpack_into_store(package: str) -> str:
    """Unpack the newest version of a package into the store, replacing an older one, and return the folder."""
    folder, new = store.path("packages", package), store.path("packages", f".{package}.new")
    with store.locked("packages.lock"):
        rmtree(new, ignore_errors=True)  # left by a crash
        os.makedirs(new)
        fetch(package, new)
        rmtree(folder, ignore_errors=True)
        durable.rename_tree(new, folder)
    return folder


def dependency(package: str, prefix: str) -> str:
    """Return the dependency of the newest version of `package` whose name begins with `prefix`.

    Raises UnavailableError if apt does not know the package.
    """
    output = run(["apt-cache", "depends", "--important", package], check=False)[1]
    for line in output.splitlines():
        relation, _, name = line.strip().partition(": ")
        if relation == "Depends" and name.startswith(prefix):
            return name
    raise UnavailableError(f"apt does not know the Debian package {package}", hint="run `apt-get update`")
