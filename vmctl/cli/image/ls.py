"""vmctl image ls."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size

if TYPE_CHECKING:
    from typing import Any

    from images.upkeep.usage import ImageUse

EXAMPLE = "vmctl image ls --all --format json"
COLUMNS = ("name", "tag", "id", "kind", "size_bytes", "created")
LESS = ("kind", "created", "id")  # the first ones to go on a narrow terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="list only images with this name; * and ? are wildcards"
    )
    parser.add_argument("-a", "--all", action="store_true", help="list build steps and images without a name too")
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")
    parser.add_argument("--digests", action="store_true", help="show full digests")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """List the images."""
    from images.store import store

    if args.quiet:
        for image in store.ls(hidden=args.all, unnamed=args.all):
            if _wanted(image.name, args.name):
                print(image.name or image.digest)
        return 0
    from images.upkeep import usage

    uses = (use for use in usage.images(hidden=args.all) if use.image.name or args.all)
    rows = [row(use) for use in uses if _wanted(use.image.name, args.name)]
    columns = [("digest" if name == "id" and args.digests else name) for name in COLUMNS]
    output.show(rows, columns, args.format, cell, LESS)
    return 0


def _wanted(name: str, pattern: str | None) -> bool:
    """Return whether a name matches the pattern; as with docker, a pattern without a tag matches all tags."""
    if pattern is None:
        return True
    from fnmatch import fnmatchcase

    return any(
        fnmatchcase(text, pattern) for text in (name, f"{name}:{_tag(name)}", name.removesuffix(f":{_tag(name)}"))
    )


def row(use: ImageUse) -> dict[str, Any]:
    """Return the row of an image, by column."""
    image = use.image
    return {
        "name": image.name,
        "tag": _tag(image.name),
        "id": image.digest.partition(":")[2][:12],
        "digest": image.digest,
        "kind": "disk" if image.disk else "layers",
        "architecture": image.architecture,
        "layers": len(image.layers),
        "size_bytes": use.size_bytes,
        "shared_bytes": use.shared_bytes,
        "unique_bytes": use.unique_bytes,
        "created": image.created,
        "instances": use.users,
    }


def cell(name: str, value: Any) -> str:
    """Return a value as a table shows it."""
    if name == "name":  # the tag is in another column
        tag = _tag(value)
        return value.removesuffix(f":{tag}") or "-"
    if name.endswith("_bytes"):
        return format_size(value)
    if name == "created":
        return output.age(value)
    return (", ".join(value) or "-") if isinstance(value, list) else str(value or "-")


def _tag(name: str) -> str:
    """Return the tag of a name, `latest` if it has no tag, or "" if a name of that kind cannot have one."""
    if not name or "@" in name or name.startswith("."):
        return ""
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or "latest"
