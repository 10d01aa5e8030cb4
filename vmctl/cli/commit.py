"""vmctl commit."""

from __future__ import annotations

import argparse

from vmctl import instance
from vmctl.cli import output


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("image", metavar="IMAGE", help="the new image; one of that name is replaced")
    parser.add_argument("-m", "--message", default="", help="for the image's history")
    parser.add_argument("-a", "--author", default="", help="for the image's history")
    parser.add_argument(
        "-c", "--change", action="append", default=[], metavar="'CMD [...]'", help="an instruction of a Dockerfile"
    )
    parser.add_argument("--no-pause", action="store_true", help="let the workload go on while it is read")


def run(args: argparse.Namespace) -> int:
    """Make the image and print its digest."""
    from functools import reduce

    from images.recipes import commit, settings

    inst = instance.load(args.name)
    progress = output.Progress()
    try:
        image = commit.commit(
            inst,
            args.image,
            message=args.message,
            author=args.author,
            change=lambda config: reduce(settings.change, args.change, config),
            pause=not args.no_pause,
            progress=progress,
        )
    finally:
        progress.clear()
    print(image.digest)
    return 0
