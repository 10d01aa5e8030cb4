"""The flags of `run` about health, restarts, removal and secrets."""

from __future__ import annotations

from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.spec.workload import Workload


def add(parser: ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--restart",
        metavar="POLICY",
        help="with -d, when to start the command again: no (default), on-failure[:N], always or unless-stopped",
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=NAME,src=FILE",
        help="file /run/secrets/NAME, in memory only; env=VARIABLE in place of src=FILE takes a variable",
    )
    parser.add_argument("--health-cmd", metavar="COMMAND", help="with -d, command of a shell that checks the health")
    for name, text in (
        ("interval", "time between two checks, such as 30s"),
        ("timeout", "time after which a check has failed"),
        ("retries", "failures in a row until it is unhealthy"),
        ("start-period", "time after the start in which failures do not count"),
        ("start-interval", "time between two checks until the first that succeeds"),
    ):
        parser.add_argument(f"--health-{name}", metavar="N" if name == "retries" else "TIME", help=text)
    parser.add_argument("--no-healthcheck", action="store_true", help="no check, also not that of the image")


def add_remove(parser: ArgumentParser) -> None:
    """Add --rm."""
    parser.add_argument("--rm", action="store_true", help="remove the instance when it has ended")


def removes(args: Namespace, work: Workload) -> dict[str, bool]:
    """Return the values of the state for --rm. Raises SpecError if it contradicts something else."""
    if not args.rm:
        return {}
    if work.restart.policy != "no":
        raise SpecError(
            f"--rm and restart: {work.restart.policy} exclude each other: it would be removed and started again",
            hint="leave one of them out",
        )
    if getattr(args, "keep", False):
        raise SpecError("--rm and --keep exclude each other", hint="leave one of them out")
    return {"removes": True}
