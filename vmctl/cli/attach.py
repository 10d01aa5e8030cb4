"""vmctl attach."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from functools import partial

from vmctl import engine
from vmctl.attach import front, keys
from vmctl.attach.session import LeaveError
from vmctl.cli import selection, terminals
from vmctl.errors import SpecError, StateError
from vmctl.light import signal
from vmctl.linux.stdio import signals_to
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from vmctl.instances.instance import Instance

EXAMPLE = "vmctl attach --detach-keys ctrl-x,d web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance")
    terminals.add_detach_keys(parser)
    parser.add_argument("--no-stdin", action="store_true", help="do not connect stdin")
    parser.add_argument(
        "--sig-proxy",
        choices=("true", "false"),
        default="true",
        help="pass SIGINT, SIGTERM and SIGQUIT on to a workload without a terminal (default: true)",
    )


def run(args: Namespace) -> int:
    """Connect with the workload until it ends, and return its exit code."""
    inst = selection.one(args.name)
    if engine.status(inst) != "running":
        raise StateError(f"{inst.name} is not running", hint=f"`vmctl start {inst.name}` starts it again")
    send = partial(engine.kill, inst) if args.sig_proxy == "true" else None
    try:
        if args.no_stdin or not (inst.work.tty or inst.work.stdin_open):
            return _follow(inst, send)
        return converse(inst, args, None if inst.work.tty else send)
    except LeaveError as left:
        return left.code


def converse(inst: Instance, args: Namespace, send: partial[None] | None) -> int:
    """Connect with its terminal or its input, and return the exit code."""
    if inst.work.tty and not os.isatty(0):
        raise SpecError(
            f"{inst.name} has a terminal, but the input of this command is none",
            hint="--no-stdin shows only its output",
        )
    if front.attach(inst, keys.parse(args.detach_keys) if inst.work.tty else b"", send):
        return _end(inst)
    return terminals.left(inst.name)


def _follow(inst: Instance, send: partial[None] | None) -> int:
    """Show the output from now on."""
    from vmctl.cli import logs

    with signals_to(partial(front.pass_on, send)):
        words = Namespace(
            names=[inst.name], follow=True, tail=0, timestamps=False, streams=False, since=None, until=None, boot=False
        )
        logs.run(words)
    return _end(inst)


def _end(inst: Instance) -> int:
    """Return the exit code of a workload that has ended."""
    inst.recall()
    result = engine.wait(inst, front.END_S)
    if result is None:
        print(f"vmctl: the connection with {inst.name} has ended, but it runs on", file=sys.stderr)
        return 128 + signal.SIGHUP
    return result.code
