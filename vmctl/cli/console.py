"""vmctl console."""

from __future__ import annotations

import argparse
import sys

from vmctl import backends, engine
from vmctl.attach import keys
from vmctl.attach.session import LeaveError
from vmctl.backend import HasConsole
from vmctl.cli import attach, selection
from vmctl.errors import StateError, UnavailableError

EXAMPLE = "vmctl console web"
KEYS = "ctrl-]"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance")
    parser.add_argument(
        "--detach-keys", metavar="KEYS", default=KEYS, help=f"keys that leave the console (default: {KEYS})"
    )


def run(args: argparse.Namespace) -> int:
    """Connect with the console until the keys are typed, or until the instance ends."""
    inst = selection.one(args.name)
    backend = backends.load(inst.state.mode)
    if engine.status(inst, backend) != "running":
        raise StateError(f"{inst.name} is not running", hint=f"`vmctl start {inst.name}` starts it again")
    pressed = keys.parse(args.detach_keys)
    if not isinstance(backend, HasConsole) and not inst.work.tty:
        raise UnavailableError(
            f"{inst.name} has no console: mode {inst.state.mode} boots no kernel",
            hint=f"`vmctl shell {inst.name}` opens a shell",
        )
    print(f"vmctl: the console of {inst.name}; {args.detach_keys} leaves", file=sys.stderr)
    if not isinstance(backend, HasConsole):  # its terminal
        try:
            return attach.converse(inst, args, None)
        except LeaveError as left:
            return left.code
    ended = backend.console(inst, pressed)
    print(f"\r\nvmctl: {inst.name} has ended" if ended else "\r", file=sys.stderr)
    return 0
