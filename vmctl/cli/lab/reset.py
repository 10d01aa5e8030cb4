"""vmctl lab reset."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from vmctl import engine, networks
from vmctl.cli import each, output, prune
from vmctl.instances import instance
from vmctl.stacks import ending, record
from vmctl.volumes import store as volumes

EXAMPLE = "vmctl lab reset --force"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-f", "--force", action="store_true", help="do not ask for confirmation")


def run(args: argparse.Namespace) -> int:
    """Remove all stacks, instances, volumes and networks, and print their names; images and kernels are kept."""
    found = list(_everything())
    if found and not args.force and not prune.agreed([f"{kind} {name}" for kind, name in found], "lab reset"):
        output.note("nothing was removed")
        return 1
    code = each(record.names(), _stack)
    code |= each(instance.names(), _instance)
    code |= each(volumes.names(), volumes.remove)
    code |= each(networks.unused(), networks.remove)
    return code


def _everything() -> Iterator[tuple[str, str]]:
    """Yield kind and name of all that can be removed, in the order in which it is."""
    yield from (("stack", name) for name in record.names())
    yield from (("instance", name) for name in instance.names())
    yield from (("volume", name) for name in volumes.names())
    yield from (("network", seen.name) for seen in networks.survey()[1:])  # the first one is always there


def _stack(name: str) -> None:
    ending.down(name, 0, volumes=True, report=lambda *_: None)


def _instance(name: str) -> None:
    if left := engine.rm(name, force=True):
        output.note(f"warning: {name} could not be read, and these objects are left: {'; '.join(left)}")
