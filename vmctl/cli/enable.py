"""vmctl enable."""

from __future__ import annotations

import argparse

from vmctl.cli import each, output
from vmctl.instances import instance
from vmctl.keeping import unit
from vmctl.linux import usernamespace

EXAMPLE = "vmctl enable web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")


def run(args: argparse.Namespace) -> int:
    """Write the unit of each and print its name."""

    def enable(name: str) -> None:
        inst = instance.load(name)
        with inst.locked():
            path = unit.enable(inst)
        print(name)
        if not args.quiet:
            output.note(f"{path} starts it at {_moment()}")

    return each(args.names, enable, echo=False)


def _moment() -> str:
    if usernamespace.is_host_root():
        return "boot"
    return "login; after `loginctl enable-linger` at boot"
