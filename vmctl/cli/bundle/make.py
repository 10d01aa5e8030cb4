"""vmctl bundle make."""

from __future__ import annotations

import argparse
import os

from vmctl import __version__
from vmctl.cli import output
from vmctl.errors import ConflictError, NotFoundError, VmctlError
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size

if TYPE_CHECKING:
    from images.store.image import Image

EXAMPLE = "vmctl bundle make --image python labs.tar"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="file to write")
    parser.add_argument(
        "--image",
        dest="images",
        action="append",
        metavar="IMAGE",
        help="image to include; can be repeated (default: those of the labs that are in the store)",
    )
    parser.add_argument(
        "--kernel", default="debian", metavar="NAME", help="kernel of the store, or none (default: debian)"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace FILE if it exists")


def run(args: argparse.Namespace) -> int:
    """Write the bundle and print its size."""
    from bench import labs
    from images.bundles import making

    if os.path.lexists(args.file) and not args.force:
        raise ConflictError(f"{args.file} exists", hint="`--force` replaces it")
    images = _images(args.images)
    kernel = "" if args.kernel == "none" else args.kernel
    progress = output.Progress()
    try:
        index = making.make(args.file, images, kernel, labs.digests(), __version__, progress)
    except OSError as error:
        raise VmctlError(f"cannot write {args.file}: {error.strerror}", hint="choose another file") from None
    finally:
        progress.clear()
    for kind, name in [*(("image", one.name) for one in index.images), *((one.kind, one.name) for one in index.trees)]:
        print(f"{kind} {name}")
    output.note(
        f"{args.file}: {format_size(os.path.getsize(args.file))}; `vmctl bundle use {args.file}` on each machine"
    )
    return 0


def _images(names: list[str] | None) -> list[Image]:
    """Return the images: those that are asked for, or those of the labs that the store has. Raises NotFoundError."""
    from bench import labs
    from images.store import store

    if names:
        return [store.find(name) for name in dict.fromkeys(names)]
    found = []
    for name in labs.IMAGES:
        try:
            found.append(store.find(name))
        except NotFoundError:
            output.note(
                f"the image {name} is not in the store, so the labs that use it cannot be decided with this bundle"
            )
    return found
