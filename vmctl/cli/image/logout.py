"""vmctl image logout."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.image import access

EXAMPLE = "vmctl image logout localhost:5000"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("registry", metavar="REGISTRY", help="registry such as docker.io or localhost:5000")
    access.add_authfile(parser)


def run(args: argparse.Namespace) -> int:
    """Remove the password for a registry."""
    from images.transfer import registry

    registry.logout(args.registry, access.chosen(args))
    output.note(f"vmctl: logged out of {args.registry}")
    return 0
