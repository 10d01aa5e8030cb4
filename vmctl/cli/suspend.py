"""vmctl suspend."""

from __future__ import annotations

from vmctl import suspending
from vmctl.cli import each, output, selection
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds, format_size

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl suspend web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "suspend all running instances")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")


def run(args: Namespace) -> int:
    """Suspend each and print its name; its time and size go to stderr."""

    def suspend(name: str) -> None:
        found = suspending.suspend(instance.load(name))
        if not args.quiet:
            size, took = format_size(found.size_bytes), format_seconds(found.took_s)
            output.note(
                f"{name} is suspended after {took}, with {size} on the disk; `vmctl resume {name}` lets it go on"
            )

    return each(selection.with_status(args, "running"), suspend)
