"""The guest's sshd: the host's dropbear and the libraries it is linked with."""

from __future__ import annotations

from vmctl.errors import UnavailableError
from vmctl.programs import run, which


def sshd_files() -> list[tuple[str, str, int]]:
    """Return (host path, path in the initrd, mode) of dropbear, its libraries and the loader, as listed by ldd(1).

    Raises UnavailableError if dropbear is not installed.
    """
    program = which("dropbear")
    if program is None:
        raise UnavailableError(
            "dropbear, the sshd of guests, is not installed", hint="`vmctl doctor` shows how to install it"
        )
    # each line is `NAME => /PATH (ADDRESS)` or, for the loader, `/PATH (ADDRESS)`
    words = run(["ldd", program])[1].split()
    libraries = [word for word in words if word.startswith("/")]
    return [(program, "bin/dropbear", 0o755), *((path, path.lstrip("/"), 0o755) for path in libraries)]
