"""vmctl image import."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from images.store.image import Image

EXAMPLE = "vmctl image import --name web saved.tar"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", metavar="PATH", help="file or folder; - is standard input")
    parser.add_argument("--name", default="", help="name of the image (default: that of the archive or the file)")
    parser.add_argument(
        "--as-layer",
        action="store_true",
        help="import the root file system of a disk, or any tar archive, as a layer",
    )
    parser.add_argument(
        "--arch",
        "--platform",
        dest="platform",
        default="",
        help="platform to take from a multi-platform image, such as arm64",
    )
    add_max_size(parser)


def add_max_size(parser: argparse.ArgumentParser) -> None:
    """Add --max-size."""
    parser.add_argument(
        "--max-size",
        metavar="SIZE",
        type=output.size,
        help="limit for an unpacked layer, such as 20G (default: 4G, or 100 times its packed size)",
    )


def run(args: argparse.Namespace) -> int:
    """Import the images and print their names."""
    from images.transfer import importing

    progress = output.Progress()
    options = importing.Options(args.name, args.as_layer, args.platform, args.max_size)
    try:
        images = importing.import_path(args.path, options, progress)
    finally:
        progress.clear()
    print_names(images)
    return 0


def print_names(images: Iterable[Image]) -> None:
    """Print the names of images, and to stderr which of them cannot run here."""
    from images.store.image import architecture

    for image in images:
        print(image.name)
        if image.architecture != architecture():
            output.note(f"vmctl: {image.name} is for {image.architecture}: this host, {architecture()}, cannot run it")
