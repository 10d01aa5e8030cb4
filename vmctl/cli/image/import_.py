"""vmctl image import."""

from __future__ import annotations

import argparse
import sys

from vmctl.cli import output
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from images.store.image import Image

EXAMPLE = "vmctl image import --name web saved.tar"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", metavar="PATH", nargs="?", help="file or folder; - is standard input (the default)")
    parser.add_argument("new", metavar="NAME", nargs="?", default="", help="as --name")
    parser.add_argument("-i", "--input", metavar="PATH", help="as PATH")
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

    path = args.input or args.path or "-"
    if path == "-" and sys.stdin.isatty():
        raise SpecError("no file or folder was given", hint="`vmctl image import PATH`")
    progress = output.Progress()
    options = importing.Options(args.name or args.new, args.as_layer, args.platform, args.max_size)
    try:
        images = importing.import_path(path, options, progress)
    finally:
        progress.clear()
    print_names(images)
    _warn_of_boot(images)
    return 0


def _warn_of_boot(images: Iterable[Image]) -> None:
    """Print to stderr which disks no guest can boot from: a guest would wait in its firmware."""
    from images.disks import bootable

    for image in images:
        if image.disk and (problem := bootable.problem(image.disk)):
            output.note(f"warning: no guest will boot from {image.name}: {problem}")
            output.note("hint: `vmctl image import --as-layer` reads its root file system, for every mode")


def print_names(images: Iterable[Image]) -> None:
    """Print the names of images, and to stderr which of them cannot run here."""
    from images.store.image import architecture

    for image in images:
        print(image.name)
        if image.architecture != architecture():
            host = architecture()
            output.note(f"warning: {image.name} is for {image.architecture}: this host, {host}, cannot run it")
