"""The guest's sshd: the host's dropbear with the libraries it is linked to."""

from __future__ import annotations

from vmctl.errors import UnavailableError
from vmctl.run import run, which


def sshd_files() -> list[tuple[str, str, int]]:
    """Return (host path, path in the initrd, mode) of dropbear and of each library and loader that ldd(1) names.

    Raises UnavailableError where dropbear is not installed.
    """
    program = which("dropbear")
    if program is None:
        raise UnavailableError(
            "dropbear, the sshd of guests, is not installed", hint="on Debian it is in the package dropbear-bin"
        )
    # each line is `NAME => /PATH (ADDRESS)` or, for the loader, `/PATH (ADDRESS)`
    words = run(["ldd", program])[1].split()
    libraries = [word for word in words if word.startswith("/")]
    return [(program, "bin/dropbear", 0o755), *((path, path.lstrip("/"), 0o755) for path in libraries)]
