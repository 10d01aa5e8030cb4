"""Contenders that bring a service or a store of their own: docker and podman. What cannot run here says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from resource import RLIM_INFINITY, RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit

from bench.peers.command import time_command
from bench.peers.containers import PROGRAM, Contender
from bench.peers.root import Root
from vmctl.errors import UnavailableError
from vmctl.run import CommandError, run

DOCKER, PODMAN = "docker run", "podman run"
ANSWER_S = 20.0  # how long a service may take to say that it is there
LIMIT_MOST = 1024  # of what a limit may be raised to: podman asks for more than some hosts allow


@contextmanager
def contenders(root: Root) -> Iterator[dict[str, Contender]]:
    """Lend what starts the program through docker or podman, each under its name; docker's image goes at the end."""
    with _docker(root) as docker:
        yield {DOCKER: docker, PODMAN: _timed(podman(root.path))}


def podman(path: str) -> list[str]:
    """Return the command that starts the program on a root file system as it is.

    The limits are given, since podman's own are higher than where root may not raise them; runc, as crun wants either
    version of cgroups and not both.
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
    """Lend the contender; docker gets a copy of the root file system as an image, since it takes nothing else."""
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
    """Raise UnavailableError or CommandError where there is no docker, or no service behind it."""
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
