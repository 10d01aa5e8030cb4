"""vmctl run."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl import engine
from vmctl.cli import modes
from vmctl.errors import SpecError
from vmctl.spec import rules
from vmctl.spec.workload import Bytes, ContainerOptions, Port, Resources, Volume, Workload

EXAMPLE = "vmctl run --mode vm --publish 8080:80 tiny -- httpd -f -p 80"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("image", metavar="IMAGE", help="image to run")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD", help="command to run (default: the image's)"
    )
    modes.add(parser)
    parser.add_argument("--name", help="name of the instance (default: random)")
    _add_process(parser)
    _add_limits(parser)
    _add_environment(parser)


def _add_process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set an environment variable (default value: the caller's)",
    )
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="user to run as (default: the image's)")
    parser.add_argument("-w", "--workdir", metavar="DIR", help="working directory (default: the image's)")
    parser.add_argument(
        "--read-only", action="store_true", help="read-only root; /run, /tmp and /var/tmp are in memory"
    )
    parser.add_argument("--init", action="store_true", help="run an init as PID 1, which reaps zombies")
    parser.add_argument("-t", "--tty", action="store_true", help="give the command a terminal")
    parser.add_argument("-i", "--interactive", action="store_true", help="no effect: stdin is always connected")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--memory", metavar="SIZE", help="memory limit, such as 256M")
    parser.add_argument("--cpus", type=float, metavar="N", help="CPU limit, such as 1.5")
    parser.add_argument("--pids", type=int, metavar="N", help="limit for the number of processes and threads")
    parser.add_argument("--disk", metavar="SIZE", help="size of the writable layer, such as 1G")


def _add_environment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p",
        "--publish",
        action="append",
        default=[],
        metavar="[ADDRESS:]HOST:GUEST[/udp]",
        help="publish a port of the instance on the host (default address: 127.0.0.1)",
    )
    parser.add_argument(
        "-v",
        "--volume",
        action="append",
        default=[],
        metavar="SOURCE:TARGET[:ro]",
        help="mount a file or folder of the host",
    )
    parser.add_argument(
        "--network", choices=("bridge", "none", "host"), default="bridge", help="network (default: bridge)"
    )
    parser.add_argument(
        "--userns",
        choices=("auto", "host"),
        default="auto",
        help="container: user namespace with a separate range of ids (auto, the default), or the ids of the host",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    result = engine.run(_workload(args), args.mode, options=modes.chosen(args), tty=args.tty, on_weakened=_warn)
    if result.source == "oom":
        print("vmctl: the workload ran out of memory and was killed by the kernel (OOM)", file=sys.stderr)
    return result.code


def _warn(text: str) -> None:
    from vmctl.cli import output

    output.note(f"vmctl: warning: {text}")


def _workload(args: argparse.Namespace) -> Workload:
    command = args.command
    if command[:1] == ["--"]:
        command = command[1:]
    elif command and command[0].startswith("-"):
        raise SpecError(
            f"{command[0]} comes after IMAGE, so it would be part of the command", hint="vmctl run FLAGS IMAGE -- CMD"
        )
    work = Workload(
        name=args.name or f"run-{os.urandom(4).hex()}",
        image=args.image,
        command=tuple(command) or None,
        env=dict(map(_variable, args.env)),
        workdir=args.workdir,
        user=args.user,
        ports=tuple(map(_port, args.publish)),
        volumes=tuple(map(_volume, args.volume)),
        resources=Resources(args.cpus, _size("memory", args.memory), args.pids, _size("disk", args.disk)),
        network=args.network,
        init=args.init,
        read_only=args.read_only,
        container=ContainerOptions(userns=args.userns),
    )
    rules.check(work)
    return work


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name, "")


def _size(flag: str, text: str | None) -> Bytes | None:
    if not text:
        return None
    from vmctl.spec import units

    try:
        return Bytes(units.parse_size(text))
    except ValueError as error:
        raise SpecError(f"--{flag}: expected {error}") from None


def _port(text: str) -> Port:
    from vmctl.spec import specfields  # it imports msgspec, 50 ms

    try:
        return specfields.parse_port(text)
    except ValueError as error:
        raise SpecError(f"--publish: expected {error}") from None


def _volume(text: str) -> Volume:
    from vmctl.spec import specfields

    try:
        return specfields.parse_volume(text)
    except ValueError as error:
        raise SpecError(f"--volume: expected {error}") from None
