"""vmctl down."""

from __future__ import annotations

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
        for name in selection.names([text], last_first=True):
            volumes = withvolumes.names(name) if args.volumes else []
            if engine.down(name, args.time):
                print(name)
            withvolumes.remove(volumes)

    if not args.names and not args.all and (stack := stacknames.here()):
        return each([stack], lambda name: _stack_down(name, args), echo=False)
    return each(args.names if args.names and not args.all else selection.every(args), down, echo=False)


def _stack_down(name: str, args: Namespace) -> None:
    from vmctl.stacks import ending, workers

    def report(instance: str, event: str, _: object) -> None:
        if event == workers.DONE:
            print(instance, flush=True)

    ending.down(name, args.time, volumes=args.volumes, report=report)
