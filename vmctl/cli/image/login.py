"""vmctl image login."""

from __future__ import annotations

import argparse
import sys

from vmctl.cli import output
from vmctl.cli.image import access
from vmctl.errors import SpecError

EXAMPLE = "vmctl image login --user me localhost:5000"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("registry", metavar="REGISTRY", help="registry such as docker.io or localhost:5000")
    parser.add_argument("-u", "--user", "--username", default="", help="user name (default: ask on the terminal)")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    access.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Check a password with the registry and store it."""
    from images.transfer import registry

    registry.login(args.registry, *_credentials(args), access.chosen(args))
    output.note(f"vmctl: logged in to {args.registry}")
    return 0


def _credentials(args: argparse.Namespace) -> tuple[str, str]:
    if args.password_stdin:
        if not args.user:
            raise SpecError("--password-stdin needs --user")
        return args.user, sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise SpecError("login has no terminal to ask for the password", hint="use --user NAME --password-stdin")
    from getpass import getpass

    sys.stderr.write("" if args.user else "User: ")
    sys.stderr.flush()
    return args.user or sys.stdin.readline().strip(), getpass("Password: ")
