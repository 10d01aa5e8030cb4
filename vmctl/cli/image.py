"""vmctl image."""

from __future__ import annotations

import argparse
from typing import Any

from vmctl.cli import output
from vmctl.errors import SpecError
from vmctl.units import format_size


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ls|build|rm|kernel")
    listing = actions.add_parser("ls", help="list images")
    output.add_format(listing)
    build = actions.add_parser("build", help="build a shipped image")
    build.add_argument("name", metavar="NAME", help="tiny")
    remove = actions.add_parser("rm", help="remove images that no instance uses")
    remove.add_argument("names", metavar="NAME", nargs="+")
    actions.add_parser("kernel", help="fetch Debian's cloud kernel for guests, without installing it")


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    code: int = {"ls": _ls, "build": _build, "rm": _rm, "kernel": _kernel}[args.action](args)
    return code


def _ls(args: argparse.Namespace) -> int:
    from images import store
    from vmctl.host import disk

    rows = [
        {
            "name": image.name,
            "digest": image.digest,
            "architecture": image.architecture,
            "layers": len(image.layers),
            "size_bytes": sum(disk.allocated_bytes(layer.path) for layer in image.layers),
            "created": image.created,
        }
        for image in store.ls()
    ]
    output.show(rows, ("name", "digest", "architecture", "layers", "size_bytes", "created"), args.format, _cell)
    return 0


def _cell(name: str, value: Any) -> str:
    if name == "digest":
        return str(value)[:19]
    return format_size(value) if name == "size_bytes" else str(value)


def _build(args: argparse.Namespace) -> int:
    from images import tiny

    if args.name != tiny.NAME:
        raise SpecError(f"there is no recipe for an image {args.name}", hint=f"known: {tiny.NAME}")
    print(tiny.build().digest)
    return 0


def _rm(args: argparse.Namespace) -> int:
    from images import store

    for name in args.names:
        store.remove(name)
        print(name)
    return 0


def _kernel(_: argparse.Namespace) -> int:
    from images import kernel

    print(kernel.fetch_debian().release)
    return 0
