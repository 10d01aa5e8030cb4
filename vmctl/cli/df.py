"""vmctl df."""

from __future__ import annotations

import argparse
import json
import sys

from vmctl.cli import leasing, output
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size

if TYPE_CHECKING:
    from typing import Any

    from images.upkeep.totals import Total
    from vmctl.usage import InstanceUse

COLUMNS = ("kind", "total", "active", "size_bytes", "shared_bytes", "reclaimable_bytes")
OF_IMAGES = ("name", "tag", "id", "created", "size_bytes", "shared_bytes", "unique_bytes", "instances")
OF_INSTANCES = ("name", "mode", "status", "image", "size_bytes")


EXAMPLE = "vmctl df --verbose"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-v", "--verbose", action="store_true", help="list each image and each instance")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Print the disk usage; each file is counted once."""
    from images.upkeep import usage
    from vmctl import usage as instance_usage
    from vmctl.cli.image import ls

    leasing.complete()
    uses = instance_usage.instances()
    if not args.verbose:
        output.show(_totals(uses), COLUMNS, args.format, _cell)
        return 0
    images = [ls.row(use) for use in usage.images()]
    instances = list(map(_instance, uses))
    if args.format == "table":
        output.show(images, OF_IMAGES, "table", ls.cell)
        sys.stdout.flush()
        output.note("")
        output.show(instances, OF_INSTANCES, "table", ls.cell)
        output.note_unknown(use.seen for use in uses)
        return 0
    if args.format not in output.FORMS:
        raise SpecError("--verbose prints two tables, so --format cannot be a template", hint="leave --verbose out")
    document = {"totals": _totals(uses), "images": images, "instances": instances}
    print(json.dumps(document, indent=2 if args.format == "json" else None))
    return 0


def _totals(uses: list[InstanceUse]) -> list[dict[str, Any]]:
    """Return a row for each kind: images, instances, volumes, snapshots, kernels, cache."""
    from images.upkeep import totals

    images, *others = totals.totals()
    return list(map(_total, (images, _of_instances(uses), _of_volumes(), _of_snapshots(), *others)))


def _of_volumes() -> Total:
    from images.upkeep.totals import Total
    from vmctl.linux import filetree
    from vmctl.volumes import store

    sizes = {name: filetree.allocated_bytes(store.folder(name)) for name in store.names()}
    unused = [name for name in sizes if not store.users(name)]
    return Total(
        "volumes", len(sizes), len(sizes) - len(unused), sum(sizes.values()), 0, sum(sizes[name] for name in unused)
    )


def _of_snapshots() -> Total:
    from images.upkeep.totals import Total
    from vmctl.linux import filetree
    from vmctl.snapshots import record

    sizes = {name: filetree.allocated_bytes(record.folder(name)) for name in record.names()}
    unused = [name for name in sizes if not record.users_of(name)]
    return Total(
        "snapshots", len(sizes), len(sizes) - len(unused), sum(sizes.values()), 0, sum(sizes[name] for name in unused)
    )


def _of_instances(uses: list[InstanceUse]) -> Total:
    from images.upkeep.totals import Total
    from vmctl.survey import RUNNING
    from vmctl.usage import STOPPED

    running = sum(1 for use in uses if use.seen.status in RUNNING)
    stopped_bytes = sum(use.size_bytes for use in uses if use.seen.status in STOPPED)
    return Total("instances", len(uses), running, sum(use.size_bytes for use in uses), 0, stopped_bytes)


def _total(total: Total) -> dict[str, Any]:
    return {**total._asdict(), "unique_bytes": total.size_bytes - total.shared_bytes}


def _instance(use: InstanceUse) -> dict[str, Any]:
    seen, inst = use.seen, use.seen.instance
    return {
        "name": seen.name,
        "mode": inst and inst.state.mode,
        "status": seen.status,
        "image": inst and inst.work.image,
        "size_bytes": use.size_bytes,
        "reason": seen.reason or None,
    }


def _cell(name: str, value: Any) -> str:
    return format_size(value) if name.endswith("_bytes") else str(value)
