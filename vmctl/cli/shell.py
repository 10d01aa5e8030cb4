"""vmctl shell."""

from __future__ import annotations

import argparse

from vmctl.cli import exec as exec_verb

# bash where the image has it; what every image with a shell has otherwise
SHELL = ("sh", "-c", "if command -v bash >/dev/null; then exec bash -l; fi; exec sh -l")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="default: the workload's")
    parser.add_argument("-w", "--workdir", help="default: the workload's")
    parser.set_defaults(tty=None, no_stdin=False)


def run(args: argparse.Namespace) -> int:
    """Open the shell and return its exit code."""
    return exec_verb.execute(args, SHELL)
