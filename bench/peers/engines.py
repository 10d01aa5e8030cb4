"""Contenders with a service or a store: docker and podman. If one cannot run on this host, its result is the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from resource import RLIM_INFINITY, RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit

from bench.peers.command import time_command
from bench.peers.containers import PROGRAM, Contender
from bench.peers.root import Root
from vmctl.errors import UnavailableError
from vmctl.programs import CommandError, run

DOCKER, PODMAN = "docker run", "podman run"
ANSWER_S = 20.0  # time limit for the answer of a service
LIMIT_MOST = 1024  # the highest limit asked for: podman's defaults are higher than some hosts allow


@contextmanager
def contenders(root: Root) -> Iterator[dict[str, Contender]]:
    """Lend the contenders docker and podman, by name; docker's image is removed at the end."""
    with _docker(root) as docker:
        yield {DOCKER: docker, PODMAN: _timed(podman(root.path))}


def podman(path: str) -> list[str]:
    """Return the podman command that starts the program on an unchanged root file system.

    It sets limits, since podman's defaults may be higher than the hard limits that root may not raise here. It uses
    runc, since crun accepts either version of cgroups but not both.
    """
    known = {"nofile": RLIMIT_NOFILE, "nproc": RLIMIT_NPROC}
    limits = [f"--ulimit={name}={_limit(number)}" for name, number in known.items()]
    return ["podman", "--runtime=runc", "run", "--rm", "--network=none", *limits, "--rootfs", path, *PROGRAM]


def _limit(number: int) -> str:
    hard = getrlimit(number)[1]
    most = LIMIT_MOST if hard == RLIM_INFINITY else min(hard, LIMIT_MOST)
    return f"{most}:{most}"


@contextmanager
def _docker(root: Root) -> Iterator[Contender]:
    """Lend the contender docker, with a copy of the root file system as an image, the only form it accepts."""
    image = f"vmctl-peers:{os.urandom(3).hex()}"
    try:
        _import(root, image)
    except (UnavailableError, CommandError) as error:
        yield _unable(f"docker cannot be used here: {error}")
        return
    try:
        yield _timed(["docker", "run", "--rm", "--network=none", image, *PROGRAM])
    finally:
        run(["docker", "rmi", "--force", image], check=False)


def _import(root: Root, image: str) -> None:
    """Import the root file system as an image.

    Raises UnavailableError or CommandError if docker is not installed or its service does not answer.
    """
    run(["docker", "info"], timeout_s=ANSWER_S)
    tar = os.path.join(root.folder, "root.tar")
    run(["tar", "--one-file-system", "-C", root.path, "-cf", tar, "."])
    try:
        run(["docker", "import", tar, image])
    finally:
        os.unlink(tar)


def _timed(argv: list[str]) -> Contender:
    return lambda: time_command(argv).first_byte_s()


def _unable(reason: str) -> Contender:
    def refuse() -> float:
        raise UnavailableError(reason)

    return refuse
