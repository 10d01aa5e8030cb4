"""vmctl update."""

from __future__ import annotations

from vmctl import updating
from vmctl.cli import each, selection
from vmctl.cli.run import FLAGS
from vmctl.errors import SpecError
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec import flags

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl update --memory 512M --cpus 1.5 web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")
    parser.add_argument(
        "-m", "--memory", metavar="SIZE", help="memory; a guest can have at most what it was booted with"
    )
    parser.add_argument("--cpus", metavar="N", help="processors; a guest can have at most what it was booted with")
    parser.add_argument("--pids", "--pids-limit", metavar="N", help="number of processes and threads")


def run(args: Namespace) -> int:
    """Change the limits of each, now if it runs and for its later starts, and print its name."""
    document = {"cpus": args.cpus, "memory": args.memory, "pids": args.pids}
    if not any(value is not None for value in document.values()):
        raise SpecError("no limit was given", hint=EXAMPLE)
    wanted = flags.workload({"name": "update", "image": "", "resources": document}, FLAGS).resources
    return each(selection.names(args.names), lambda name: updating.update(instance.load(name), wanted))
