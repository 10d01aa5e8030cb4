"""vmctl scale."""

from __future__ import annotations

import argparse
import os

from vmctl.cli import modes, stacknames, stackup, up
from vmctl.errors import NotFoundError, SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from vmctl.stacks.stack import Stack

EXAMPLE = "vmctl scale shop.yaml web=3"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("stack", metavar="STACK|FILE", help="name of a stack, or its file")
    parser.add_argument("scale", metavar="SERVICE=N", nargs="+", help="number of instances of a service")
    modes.add(parser, default=None)
    up.add_wait(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")


def run(args: argparse.Namespace) -> int:
    """Start or remove instances of services of a stack."""
    args = argparse.Namespace(**{**_DEFAULTS, **vars(args)})
    stack = _stack(args)
    services = [text.partition("=")[0] for text in args.scale]
    for text in args.scale:
        if "=" not in text:
            raise SpecError(f"expected SERVICE=N, got {text}", hint=EXAMPLE)
    return stackup.up(args, stack, services)


_DEFAULTS: dict[str, Any] = {
    "name": None,
    "env_file": [],
    "profile": [],
    "mode_of": [],
    "build": False,
    "keep": False,
    "force_recreate": False,
    "remove_orphans": False,
    "dry_run": False,
    "explain": False,
}


def _stack(args: argparse.Namespace) -> Stack:
    if stacknames.is_file(args.stack):
        return stackup.loaded(args, [args.stack], {})
    from vmctl.stacks import record

    known = record.load(args.stack)
    if not known.files or not all(map(os.path.exists, known.files)):
        raise NotFoundError(f"there is no stack {args.stack} whose file is known", hint="name its file")
    args.name, args.profile, args.env_file = args.stack, known.profiles, known.env_files
    return stackup.loaded(args, known.files, {})
