"""vmctl down."""

from __future__ import annotations

import os

from vmctl import engine
from vmctl.cli import each, output, selection, stacknames, withvolumes
from vmctl.cli.stop import TIME
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl down web.yaml"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "stop and remove all instances", names="NAME|SPEC", text="instance, stack, or file of either")
    parser.add_argument("-t", "--time", "--timeout", type=output.seconds, metavar="SECONDS", help=TIME)
    withvolumes.add(parser)


def run(args: Namespace) -> int:
    """Stop and remove each; an instance that does not exist is not an error."""

    def down(text: str) -> None:
        stack = stacknames.stack_of(text)
        if stack is not None:
            _stack_down(stack, args)
            return
        name = stacknames.of_file(text)[0] if stacknames.is_file(text) else text
        volumes = withvolumes.names(name) if args.volumes else []
        if engine.down(name, args.time):
            print(name)
        withvolumes.remove(volumes)

    return each(_names(args), down, echo=False)


def _names(args: Namespace) -> list[str]:
    """Return what is to be removed: the words, or the stack of this folder."""
    if args.all:
        return selection.every(args)
    if args.names:
        return list(args.names)
    from vmctl.stacks import reading

    files = reading.usual_files(".")
    return [f"./{os.path.basename(files[0])}"] if files else selection.every(args)


def _stack_down(name: str, args: Namespace) -> None:
    from vmctl.stacks import ending, workers

    def report(instance: str, event: str, _: object) -> None:
        if event == workers.DONE:
            print(instance, flush=True)

    ending.down(name, args.time, volumes=args.volumes, report=report)
