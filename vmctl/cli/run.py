"""vmctl run."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl import engine
from vmctl.cli import modes
from vmctl.errors import SpecError
from vmctl.workload import Bytes, ContainerOptions, Port, Resources, Volume, Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="default: the image's own")
    modes.add(parser)
    parser.add_argument("--name", help="name of the instance while it runs (default: made up)")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]")
    parser.add_argument("-p", "--publish", action="append", default=[], metavar="[ADDRESS:]HOST:GUEST[/udp]")
    parser.add_argument("-v", "--volume", action="append", default=[], metavar="SOURCE:TARGET[:ro]")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]")
    parser.add_argument("-w", "--workdir")
    parser.add_argument("-m", "--memory", help="a size such as 256M")
    parser.add_argument("--cpus", type=float)
    parser.add_argument("--pids", type=int)
    parser.add_argument("--network", choices=("bridge", "none", "host"), default="bridge")
    parser.add_argument("--userns", choices=("host", "auto"), default="host", help="auto: user ids of its own")
    parser.add_argument("--init", action="store_true", help="a reaper is PID 1, not the command")
    parser.add_argument("-t", "--tty", action="store_true", help="give the command a terminal")
    parser.add_argument("-i", "--interactive", action="store_true", help="no effect: stdin is always connected")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    modes.apply(args)
    result = engine.run(_workload(args), args.mode, tty=args.tty)
    if result.source == "oom":
        print("vmctl: the workload was killed by the kernel for want of memory", file=sys.stderr)
    return result.code


def _workload(args: argparse.Namespace) -> Workload:
    command = args.command
    if command[:1] == ["--"]:
        command = command[1:]
    elif command and command[0].startswith("-"):
        raise SpecError(
            f"{command[0]} stands behind the image, where the command begins", hint="vmctl run FLAGS IMAGE -- COMMAND"
        )
    return Workload(
        name=args.name or f"run-{os.urandom(4).hex()}",
        image=args.image,
        command=tuple(command) or None,
        env=dict(map(_variable, args.env)),
        workdir=args.workdir,
        user=args.user,
        ports=tuple(map(_port, args.publish)),
        volumes=tuple(map(_volume, args.volume)),
        resources=Resources(args.cpus, _memory(args.memory), args.pids),
        network=args.network,
        init=args.init,
        container=ContainerOptions(userns=args.userns),
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name, "")


def _memory(text: str | None) -> Bytes | None:
    if not text:
        return None
    from vmctl import units

    try:
        return Bytes(units.parse_size(text))
    except ValueError as error:
        raise SpecError(f"--memory: expected {error}") from None


def _port(text: str) -> Port:
    from vmctl import specfields  # msgspec comes along, 50 ms

    try:
        return specfields.parse_port(text)
    except ValueError as error:
        raise SpecError(f"--publish: expected {error}") from None


def _volume(text: str) -> Volume:
    from vmctl import specfields

    try:
        return specfields.parse_volume(text)
    except ValueError as error:
        raise SpecError(f"--volume: expected {error}") from None
