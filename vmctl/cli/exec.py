"""vmctl exec."""

from __future__ import annotations

import os
import sys

from vmctl import engine, fromflags
from vmctl.cli import selection
from vmctl.cli.run import add_process_flags
from vmctl.cli.terminals import add_detach_keys, of_terminal
from vmctl.cli.usual import REST
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.backend import Command
    from vmctl.instances.instance import Instance

EXAMPLE = "vmctl exec web -- ps -o pid,args"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance")
    parser.add_argument("command", nargs=REST, metavar="-- CMD", help="command to run")
    add_process_flags(parser, "workload")
    parser.add_argument(
        "-t",
        "--tty",
        action="store_true",
        default=None,
        help="give the command a terminal (default: if stdin and stdout are terminals)",
    )
    parser.add_argument("-i", "--interactive", action="store_true", help="no effect: stdin is connected anyway")
    parser.add_argument("-T", "--no-tty", action="store_false", dest="tty", help="give the command no terminal")
    parser.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="return as soon as it runs, without its streams",
    )
    parser.add_argument("--no-stdin", action="store_true", help="do not connect stdin with the command")
    add_detach_keys(parser)


def run(args: Namespace) -> int:
    """Run the command and return its exit code; 0 if it is in the background."""
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise SpecError("no command was given", hint=f"vmctl exec {args.name} -- ls /")
    return execute(args, tuple(words))


def execute(args: Namespace, words: tuple[str, ...]) -> int:
    """Run a command with the options in `args` and return its exit code."""
    detach = getattr(args, "detach", False)  # `shell` has no such flag
    tty = args.tty if args.tty is not None else os.isatty(0) and os.isatty(1) and not detach
    if tty and detach:
        raise SpecError("-d and -t cannot be combined: nobody has the other side of that terminal", hint="leave out -t")
    command = fromflags.command(args, words, of_terminal() if tty else {})
    command = command._replace(stdin=not args.no_stdin, detach=detach)
    inst = selection.one(args.name)
    if not tty or args.no_stdin:
        return engine.exec_command(inst, command)
    return _on_terminal(inst, command._replace(tty=True), args.detach_keys)


def _on_terminal(inst: Instance, command: Command, pressed: str | None) -> int:
    from vmctl.attach import keys
    from vmctl.attach.session import DetachedError

    try:
        return engine.exec_command(inst, command._replace(detach_keys=keys.parse(pressed)))
    except DetachedError:
        print(f"\r\nvmctl: {command.argv[0]} runs on in {inst.name}", file=sys.stderr)
        return 0
