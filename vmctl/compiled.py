"""Small static programs that run inside instances: compiled on this host from sources of ours, once per version."""

from __future__ import annotations

import os

from vmctl import paths
from vmctl.errors import UnavailableError
from vmctl.linux import filetree
from vmctl.programs import CommandError, run, which

_COMPILER = ("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-static")
_COMPILE_S = 120.0
_HINT = "on Debian: apt install gcc libc6-dev"


def program(name: str, folder: str, what: str) -> str:
    """Return the path of the static program made of the C files in `folder`; it is kept until one of them changes.

    `name` begins the file's name in the cache, `what` is for errors. Raises UnavailableError if no C compiler or no
    static C library is installed.
    """
    from hashlib import sha256

    sources = sorted(os.path.join(folder, file) for file in os.listdir(folder) if file.endswith((".c", ".h")))
    digest = sha256()
    for source in sources:
        with open(source, "rb") as file:
            digest.update(sha256(file.read()).digest())
    path = os.path.join(paths.cache_root(), f"{name}-{digest.hexdigest()[:12]}")
    if not os.path.exists(path):
        _compile([source for source in sources if source.endswith(".c")], path, what)
    return path


def _compile(sources: list[str], path: str, what: str) -> None:
    if which(_COMPILER[0]) is None:
        raise UnavailableError(f"{what} cannot be compiled: cc is not installed", hint=_HINT)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with filetree.replacing(path) as new:
            run([*_COMPILER, "-s", "-o", new, *sources], timeout_s=_COMPILE_S)
            os.chmod(new, 0o755)  # it is copied into images, whose workloads have any user
    except CommandError as error:
        raise UnavailableError(f"{what} cannot be compiled", hint=_HINT, detail=error.output) from error
