"""vmctl df."""

from __future__ import annotations

import argparse
import json
import sys

from vmctl.cli import output
from vmctl.named import TYPE_CHECKING
from vmctl.units import format_size

if TYPE_CHECKING:
    from typing import Any

    from images.upkeep.totals import Total
    from images.upkeep.usage import InstanceUse

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
    from images.upkeep import totals, usage
    from vmctl.cli.image import ls

    if not args.verbose:
        output.show(list(map(_total, totals.totals())), COLUMNS, args.format, _cell)
        return 0
    images = [ls.row(use) for use in usage.images()]
    instances = list(map(_instance, usage.instances()))
    if args.format == "table":
        output.show(images, OF_IMAGES, "table", ls.cell)
        sys.stdout.flush()
        output.note("")
        output.show(instances, OF_INSTANCES, "table", ls.cell)
        return 0
    document = {"totals": list(map(_total, totals.totals())), "images": images, "instances": instances}
    print(json.dumps(document, indent=2 if args.format == "json" else None))
    return 0


def _total(total: Total) -> dict[str, Any]:
    return {**total._asdict(), "unique_bytes": total.size_bytes - total.shared_bytes}


def _instance(use: InstanceUse) -> dict[str, Any]:
    inst = use.instance
    return {
        "name": inst.name,
        "mode": inst.state.mode,
        "status": use.status,
        "image": inst.work.image,
        "size_bytes": use.size_bytes,
    }


def _cell(name: str, value: Any) -> str:
    return format_size(value) if name.endswith("_bytes") else str(value)
