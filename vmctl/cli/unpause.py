"""vmctl unpause."""

from __future__ import annotations

from vmctl import pausing
from vmctl.cli import each, selection
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl unpause web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "unpause all paused instances")


def run(args: Namespace) -> int:
    """Let each go on and print its name."""
    return each(selection.with_status(args, "paused"), lambda name: pausing.unpause(instance.load(name)))
