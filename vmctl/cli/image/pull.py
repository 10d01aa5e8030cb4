"""vmctl image pull."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.image import access, import_

EXAMPLE = "vmctl image pull debian:12"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "name", metavar="REF", help="such as debian:12 or localhost:5000/web (default registry: docker.io)"
    )
    parser.add_argument(
        "--platform", default="", help="platform of a multi-platform image, such as linux/arm64 (default: this host's)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    access.add_flags(parser)
    import_.add_max_size(parser)


def run(args: argparse.Namespace) -> int:
    """Download an image and print its name."""
    from images.transfer import pulling

    progress = output.Progress(quiet=args.quiet)
    try:
        image = pulling.pull(
            args.name, access.chosen(args), progress, platform=args.platform, max_layer_bytes=args.max_size
        )
    finally:
        progress.clear()
    import_.print_names([image])
    return 0
