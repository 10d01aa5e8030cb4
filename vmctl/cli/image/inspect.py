"""vmctl image inspect."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.image import ls
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from images.store.image import Image

EXAMPLE = "vmctl image inspect tiny"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="name of an image, or beginning of its digest")
    output.add_format_of_documents(parser, "Config.Env")


def run(args: argparse.Namespace) -> int:
    """Print a JSON array, or the text of a template for each."""
    from images.store import store

    output.show_documents([_document(store.find(name)) for name in args.names], args.format, _like_docker)
    return 0


def _like_docker(image: output.Row) -> output.Row:
    return {"Id": image["digest"], "RepoTags": image["names"], "Config": image["config"].get("config") or {}}


def _document(image: Image) -> dict[str, Any]:
    from images.store import store
    from images.upkeep import usage

    manifest, config = store.manifest(image), store.document(image)
    use = next(use for use in usage.images(hidden=True) if use.image == image)
    return {
        **ls.row(use),
        "names": [other.name for other in store.ls() if other.digest == image.digest],
        "layers": _layers(image),
        "disk": image.disk or None,
        "config_digest": manifest["config"]["digest"],
        "config": config,
        "only_stored": store.only_stored(config.get("config") or {}),
        "annotations": manifest.get("annotations", {}),
    }


def _layers(image: Image) -> list[dict[str, Any]]:
    from images.upkeep import usage
    from vmctl.linux import filetree

    owners = usage.layer_owners(layer.path for layer in image.layers)
    return [
        {
            "diff_id": layer.digest,
            "path": layer.path,
            "tar_bytes": layer.size_bytes,
            "allocated_bytes": filetree.allocated_bytes(layer.path),
            "shared_with": [name for name in owners[layer.path] if name != image.name],
        }
        for layer in image.layers
    ]
