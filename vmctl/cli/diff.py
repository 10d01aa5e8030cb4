"""vmctl diff."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl import lending
from vmctl.cli import output, selection
from vmctl.console import visible

EXAMPLE = "vmctl diff web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for each path that differs from the image: A(dded), C(hanged) or D(eleted)."""
    from images.layer import changes, layers
    from images.recipes import commit
    from images.store import store

    inst = selection.one(args.name)
    image = store.find(inst.image)
    commit.require_layers(image, inst.name)
    with lending.writable(inst, pause=False) as writable:
        found = changes.changes((*image.layers, *map(layers.at, writable.below)), writable)
    if args.format != "table":
        output.show([change._asdict() for change in found], (), args.format)
        return 0
    for change in found:  # like docker: without a title, and a file name need not be UTF-8
        line = f"{change.kind} {change.path}"
        sys.stdout.buffer.write(os.fsencode(f"{visible(line) if sys.stdout.isatty() else line}\n"))
    return 0
