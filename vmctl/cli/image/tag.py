"""vmctl image tag."""

from __future__ import annotations

import argparse

EXAMPLE = "vmctl image tag tiny localhost:5000/tiny:1"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="name of the image, or beginning of its digest")
    parser.add_argument("other", metavar="NEW", help="another name for it; an image that has this name loses it")


def run(args: argparse.Namespace) -> int:
    """Give the image the name and print it."""
    from images.store import reference, store

    print(store.tag(store.find(args.name), reference.of_new_image(args.other)).name)
    return 0
