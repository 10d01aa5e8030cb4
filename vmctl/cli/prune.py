"""vmctl prune."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl import engine
from vmctl.cli import leasing, output
from vmctl.errors import NotFoundError, SpecError, StateError, VmctlError
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from images.upkeep.prune import Item


INSTANCE, SNAPSHOT = "instance", "snapshot"  # kinds of items, next to those of images.upkeep.prune
EXAMPLE = "vmctl prune --all --force"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_choices(parser)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add -a, -f and --format."""
    parser.add_argument(
        "-a", "--all", action="store_true", help="remove images without instances and all build steps too"
    )
    parser.add_argument("-f", "--force", action="store_true", help="do not ask for confirmation")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Remove stopped instances and unused data of the image store, and print what was removed."""
    from images.upkeep import prune as pruning
    from vmctl import usage
    from vmctl.snapshots import record

    leasing.complete()
    uses = usage.instances()
    output.note_unknown(use.seen for use in uses)  # an instance that cannot be read may be running
    stopped = [
        pruning.Item(INSTANCE, use.seen.name, use.size_bytes) for use in uses if use.seen.status in usage.STOPPED
    ]
    unused = pruning.unused(everything=args.all, without=[item.name for item in stopped])
    record.remove_unfinished()
    temporary = [pruning.Item(SNAPSHOT, one.name, one.size_bytes) for one in record.unused_temporary()]
    return prune([*stopped, *temporary, *unused], args)


def prune(items: Sequence[Item], args: argparse.Namespace) -> int:
    """Ask, remove, and print what was removed; return 1 if the user declines."""
    from images.upkeep import prune as pruning

    texts = [f"{item.kind} {item.name} ({format_size(item.size_bytes)})" for item in items]
    if items and not args.force and not agreed(texts):
        output.note("nothing was removed")
        return 1
    unfinished = pruning.remove_unfinished()
    instances = [item for item in items if item.kind == INSTANCE]
    snapshots = [item for item in items if item.kind == SNAPSHOT]
    others = [item for item in items if item.kind not in (INSTANCE, SNAPSHOT)]
    removed = [*filter(_removed, instances), *filter(_snapshot_removed, snapshots), *pruning.remove(others)]
    output.show([item._asdict() for item in removed], ("kind", "name", "size_bytes"), args.format, _cell)
    sys.stdout.flush()
    output.note(f"freed {format_size(unfinished + sum(item.size_bytes for item in removed))}")
    return 0


def _removed(item: Item) -> bool:
    """Remove an instance and return whether that was possible: it may have been removed or started meanwhile."""
    try:
        engine.rm(item.name)
    except (NotFoundError, StateError):
        return False
    except VmctlError as error:  # the others are removed nevertheless
        output.note(f"{error}\nhint: {error.hint}")
        return False
    return True


def _snapshot_removed(item: Item) -> bool:
    from vmctl.cli import outliving
    from vmctl.snapshots import record

    return outliving.removed_one(item.name, record.remove)


def agreed(texts: Sequence[str], verb: str = "prune") -> bool:
    """Show what would be removed and return whether the user agrees. Raises SpecError without a terminal."""
    if not (os.isatty(0) and os.isatty(2)):
        raise SpecError(f"{verb} has no terminal to ask for confirmation", hint="use --force to remove without asking")
    for text in texts:
        output.note(text)
    sys.stderr.write("remove these? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _cell(name: str, value: Any) -> str:
    return format_size(value) if name == "size_bytes" else str(value)
