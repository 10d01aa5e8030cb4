"""vmctl attach."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from functools import partial

from vmctl import engine
from vmctl.attach import front, keys
from vmctl.attach.session import LeaveError
from vmctl.cli import selection, terminals
from vmctl.errors import SpecError, StateError
from vmctl.instances import lastrecord
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
    parser.add_argument("--no-stdin", action="store_true", help="do not connect stdin")
    add_connection(parser)


def add_connection(parser: ArgumentParser) -> None:
    """Add the flags that `attach` and `start -a` have."""
    terminals.add_detach_keys(parser)
    parser.add_argument(
        "--sig-proxy",
        choices=("true", "false"),
        default="true",
        help="pass SIGINT, SIGTERM and SIGQUIT on to a workload without a terminal (default: true)",
    )


def run(args: Namespace) -> int:
    """Connect with the workload until it ends, and return its exit code."""
    inst = selection.one(args.name)
    lastrecord.hold(inst)
    if engine.status(inst) not in engine.ALIVE:
        raise StateError(f"{inst.name} is not running", hint=f"`vmctl start {inst.name}` starts it again")
    return connect(inst, args)


def connect(inst: Instance, args: Namespace, since_ns: int | None = None) -> int:
    """Connect with a workload, through all its restarts, and return its exit code.

    Its output since `since_ns` is shown first.
    """
    send = partial(engine.kill, inst) if args.sig_proxy == "true" else None
    try:
        if args.no_stdin or not (inst.work.tty or inst.work.stdin_open):
            return _follow(inst, send, since_ns)
        return converse(inst, args, None if inst.work.tty else send, since_ns)
    except LeaveError as left:
        return left.code


def converse(inst: Instance, args: Namespace, send: partial[None] | None, since_ns: int | None = None) -> int:
    """Connect with its terminal or its input, and return the exit code; see `connect`."""
    if inst.work.tty and not os.isatty(0):
        raise SpecError(
            f"{inst.name} has a terminal, but the input of this command is none",
            hint="--no-stdin shows only its output",
        )
    pressed = keys.parse(args.detach_keys) if inst.work.tty else b""
    restarts = inst.state.restarts
    while (since_ns := _attached(inst, pressed, send, since_ns)) is not None:
        runs = front.comes_again(inst)
        if runs or inst.state.restarts > restarts:
            print(f"vmctl: {inst.name} has ended and was started again", file=sys.stderr)
        if not runs:
            if inst.state.restarts > restarts:  # and has ended again meanwhile
                _show(inst, since_ns, until_ns=time.time_ns())
            return _end(inst)
        restarts = inst.state.restarts
    return terminals.left(inst.name)


def _attached(inst: Instance, pressed: bytes, send: partial[None] | None, since_ns: int | None) -> int | None:
    """Connect; return until when its output was shown, None if the caller has left.

    Nothing is wrong with one that has ended by now.
    """

    def earlier(until_ns: int) -> int:
        if since_ns is not None:
            _show(inst, since_ns, until_ns=until_ns)
        return until_ns

    try:
        return front.attach(inst, pressed, send, before=earlier)
    except StateError:
        inst.recall()
        if engine.status(inst) == "running" and inst.work.restart.policy == "no":
            raise
        return earlier(time.time_ns())


def _follow(inst: Instance, send: partial[None] | None, since_ns: int | None) -> int:
    """Show the output since a time, or from now on, until the end."""
    with signals_to(partial(front.pass_on, send)):
        _show(inst, since_ns, follow=True)
    return _end(inst)


def _show(inst: Instance, since_ns: int | None, *, until_ns: int | None = None, follow: bool = False) -> None:
    from vmctl.cli import logs

    tail = 0 if since_ns is None else None
    asked = {"names": [inst.name], "follow": follow, "since": since_ns, "until": until_ns, "tail": tail}
    logs.run(Namespace(**asked, timestamps=False, streams=False, boot=False))


def _end(inst: Instance) -> int:
    """Return the exit code of a workload that has ended."""
    if not inst.state.removes:
        inst.recall()
    result = engine.wait(inst, front.END_S)
    if result is None:
        print(f"vmctl: the connection with {inst.name} has ended, but it runs on", file=sys.stderr)
        return 128 + signal.SIGHUP
    return result.code
