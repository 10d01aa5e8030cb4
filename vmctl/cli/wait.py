"""vmctl wait."""

from __future__ import annotations

from vmctl import engine
from vmctl.cli import output
from vmctl.errors import DeadlineError
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl wait --timeout 60 web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")
    parser.add_argument(
        "--timeout", type=output.seconds, metavar="SECONDS", help="give up after this time, with exit code 124"
    )


def run(args: Namespace) -> int:
    """Print the exit code of each; return that of the last."""
    code = 0
    for inst in [instance.load(name) for name in args.names]:
        result = engine.wait(inst, args.timeout)
        if result is None:
            raise DeadlineError(f"{inst.name} is still running after {format_seconds(args.timeout)}")
        code = result.code
        print(code)
    return code
