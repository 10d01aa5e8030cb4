"""vmctl image history."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size

if TYPE_CHECKING:
    from typing import Any

    from images.store.image import Image

EXAMPLE = "vmctl image history --no-trunc tiny"
COLUMNS = ("created", "created_by", "size_bytes", "comment")
SHOWN = 60  # characters of the instruction that created a layer


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="name of the image, or beginning of its digest")
    parser.add_argument("--no-trunc", action="store_true", help="do not shorten instructions")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """List the history of an image, the newest entry first."""
    from images.store import store

    rows = _rows(store.find(args.name))

    def cell(name: str, value: Any) -> str:
        if name == "created":
            return output.age(value)
        if name == "size_bytes":
            return format_size(value)
        text = " ".join(str(value).split()) or "-"
        return text if args.no_trunc or len(text) <= SHOWN else text[: SHOWN - 3] + "..."

    output.show(rows, COLUMNS, args.format, cell)
    return 0


def _rows(image: Image) -> list[dict[str, Any]]:
    """Return the lines of the history, each with its layer, and a line for each layer without history."""
    from images.store import store
    from vmctl.linux import filetree

    lines = list(store.document(image).get("history") or [])
    missing = len(image.layers) - sum(1 for line in lines if not line.get("empty_layer"))
    lines += [{"created": image.created}] * missing
    layers = iter(image.layers)
    rows = []
    for line in lines:
        layer = None if line.get("empty_layer") else next(layers, None)
        rows.append(
            {
                "created": line.get("created", ""),
                "created_by": line.get("created_by", ""),
                "size_bytes": filetree.allocated_bytes(layer.path) if layer else 0,
                "comment": line.get("comment", ""),
                "author": line.get("author", ""),
                "diff_id": layer.digest if layer else None,
            }
        )
    return rows[::-1]
