"""vmctl down."""

from __future__ import annotations

import os

from vmctl import engine
from vmctl.cli import each, output, selection, withvolumes
from vmctl.cli.stop import TIME
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl down web.yaml"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "stop and remove all instances", names="NAME|SPEC", text="instance, or workload file")
    parser.add_argument("-t", "--time", "--timeout", type=output.seconds, metavar="SECONDS", help=TIME)
    withvolumes.add(parser)


def run(args: Namespace) -> int:
    """Stop and remove each; an instance that does not exist is not an error."""

    def down(text: str) -> None:
        name = _name(text)
        volumes = withvolumes.names(name) if args.volumes else []
        if engine.down(name, args.time):
            print(name)
        withvolumes.remove(volumes)

    return each(selection.every(args), down, echo=False)


def _name(text: str) -> str:
    if text.endswith((".yaml", ".yml")) or os.path.sep in text:
        from vmctl.spec import workloadfile

        return workloadfile.load(text).name
    return text
