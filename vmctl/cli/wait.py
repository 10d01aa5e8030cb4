"""vmctl wait."""

from __future__ import annotations

from vmctl import engine, waiting
from vmctl.cli import output, selection
from vmctl.errors import DeadlineError
from vmctl.instances import instance, lastrecord
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.backend import Exit
    from vmctl.instances.instance import Instance

EXAMPLE = "vmctl wait --timeout 60 web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")
    parser.add_argument(
        "--for",
        dest="until",
        choices=("exit", "ready", "healthy"),
        default="exit",
        help="what to wait for: its end, that it is ready, or that its check succeeds (default: exit)",
    )
    parser.add_argument(
        "--timeout", type=output.seconds, metavar="SECONDS", help="give up after this time, with exit code 124"
    )


def run(args: Namespace) -> int:
    """Print the exit code of each and return that of the last; else print each name and return 0."""
    code = 0
    found = [instance.load(name) for name in selection.names(args.names)]
    for inst in found:
        lastrecord.hold(inst)
    for inst in found:
        limit = waiting.Limit(args.timeout)
        if args.until == "exit":
            waiting.begun(inst, limit)
            code = _ended(inst, limit).code
            print(code)
        else:
            (waiting.ready if args.until == "ready" else waiting.healthy)(inst, limit)
            print(inst.name)
    return code


def _ended(inst: Instance, limit: waiting.Limit) -> Exit:
    result = engine.wait(inst, limit.left_s())
    if result is None:
        raise DeadlineError(f"{inst.name} is still running after {format_seconds(limit.timeout_s or 0)}")
    return result
