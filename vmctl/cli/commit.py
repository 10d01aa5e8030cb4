"""vmctl commit."""

from __future__ import annotations

import argparse

from vmctl import lending
from vmctl.cli import leasing, output, selection

EXAMPLE = """vmctl commit --change 'CMD ["httpd", "-f"]' web web:changed"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance")
    parser.add_argument("image", metavar="IMAGE", help="name of the new image; an image of that name is replaced")
    parser.add_argument("-m", "--message", default="", help="comment for the image's history")
    parser.add_argument("-a", "--author", default="", help="author for the image's history")
    parser.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="'CMD [...]'",
        help="Dockerfile instruction to apply to the image",
    )
    parser.add_argument("--no-pause", action="store_true", help="do not pause the workload while its files are read")


def run(args: argparse.Namespace) -> int:
    """Create the image and print its digest."""
    from functools import reduce

    from images.recipes import commit, settings
    from images.store import store

    leasing.complete()
    inst = selection.one(args.name)
    progress = output.Progress()
    try:
        image = commit.commit(
            store.find(inst.image),
            lending.writable(inst, pause=not args.no_pause),
            args.image,
            origin=inst.name,
            message=args.message,
            author=args.author,
            change=lambda config: reduce(settings.change, args.change, config),
            progress=progress,
        )
    finally:
        progress.clear()
    print(image.digest)
    return 0
