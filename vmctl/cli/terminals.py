"""What verbs have in common that connect the caller's terminal."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from contextlib import AbstractContextManager

    from vmctl.engine import Progress


def add_detach_keys(parser: ArgumentParser) -> None:
    """Add --detach-keys."""
    parser.add_argument(
        "--detach-keys",
        metavar="KEYS",
        help="keys that leave the terminal and let the command run on (default: ctrl-p,ctrl-q; none: no keys)",
    )


def of_terminal() -> dict[str, str]:
    """Return the variables that describe the caller's terminal to a command on a terminal."""
    return {name: os.environ[name] for name in ("TERM", "COLORTERM") if os.environ.get(name)}


def shown(args: Namespace) -> AbstractContextManager[Progress | None]:
    """Return a context with what shows the phases of a start, if --verbose asks for it."""
    if not args.verbose:
        return nullcontext()
    from vmctl.cli import startshow

    return startshow.shown(verbose=True)


def left(name: str) -> int:
    """Say that an instance runs on without its caller, and return the exit code."""
    print(f"\r\nvmctl: {name} runs on; `vmctl attach {name}` connects again", file=sys.stderr)
    return 0
