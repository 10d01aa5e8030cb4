"""vmctl shell."""

from __future__ import annotations

import argparse

from vmctl.cli import exec as exec_verb
from vmctl.cli.run import add_process_flags
from vmctl.cli.terminals import add_detach_keys

EXAMPLE = "vmctl shell --user root web"
# bash if the image has it, else sh, which every image with a shell has
SHELL = ("sh", "-c", "if command -v bash >/dev/null; then exec bash -l; fi; exec sh -l")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD", help="command to run (default: a login shell)"
    )
    add_process_flags(parser, "workload")
    add_detach_keys(parser)
    parser.set_defaults(tty=None, no_stdin=False)


def run(args: argparse.Namespace) -> int:
    """Open the shell, or run the command, and return its exit code."""
    return exec_verb.run(args) if args.command else exec_verb.execute(args, SHELL)
