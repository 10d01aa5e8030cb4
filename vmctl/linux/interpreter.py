"""Small processes that run as long as an instance: a bare interpreter in the place of a copy of vmctl.

`-I -S`: no site-packages, no environment. What such a program imports decides how much memory it takes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def become(
    module: str, fds: Sequence[int], arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> NoReturn:
    """Execute `main(*arguments)` of a module in a bare interpreter, which inherits `fds`; its streams are /dev/null.

    It has no environment variables but those given. Its children stay its children: exec replaces the program, not the
    process. Raises OSError.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in fds:
        os.set_inheritable(fd, True)
    # LC_ALL=C: the tables of a locale take 130 KiB and are not needed there
    os.execve(sys.executable, words(module, arguments), {"LC_ALL": "C", **(environment or {})})


def words(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of a bare interpreter that executes `main(*arguments)` of a module."""
    code = f"import sys; sys.path.append(sys.argv[1]); from {module} import main; main(*sys.argv[2:])"
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, _ROOT, *arguments]
