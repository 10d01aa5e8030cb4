"""vmctl pause."""

from __future__ import annotations

from vmctl import pausing
from vmctl.cli import each, selection
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl pause web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "pause all running instances")


def run(args: Namespace) -> int:
    """Pause each and print its name."""
    return each(selection.with_status(args, "running"), lambda name: pausing.pause(instance.load(name)))
