"""vmctl image export."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from vmctl.cli import output
from vmctl.errors import NotFoundError, SpecError, VmctlError
from vmctl.linux.filetree import replacing
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from images.store.image import Image

EXAMPLE = "vmctl image export --format docker --output web.tar web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="name of the image, or beginning of its digest")
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="file to write (default: standard output)")
    parser.add_argument(
        "--format", choices=("oci", "docker"), default="oci", help="docker: for `docker load` (default: oci)"
    )
    parser.add_argument(
        "--compress", choices=("none", "gzip"), default="none", help="how to compress the layers (default: none)"
    )


def run(args: argparse.Namespace) -> int:
    """Write an archive, whole or not at all."""
    from images.store.staging import staging
    from images.transfer import exporting

    if args.output == "-" and sys.stdout.isatty():
        raise SpecError("refusing to write an archive to a terminal", hint="use --output FILE, or a pipe")
    image = _find(args.name)
    exporting.check(image)
    progress = output.Progress()
    try:
        with _target(args.output) as file, staging() as stage:
            exporting.write_archive(image, file, stage, progress, form=args.format, compress=args.compress)
    except _OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None  # the reader of the pipe has exited
        raise
    finally:
        progress.clear()
    return 0


def _find(name: str) -> Image:
    from images.store import store
    from vmctl.instances import instance

    try:
        return store.find(name)
    except NotFoundError as error:
        if name in instance.names():  # `docker export` is for containers
            raise NotFoundError(
                f"{name} is an instance, and there is no image of this name",
                hint=f"`vmctl cp {name}:/ - >{name}.tar` writes its files, `vmctl commit {name} IMAGE` makes an image",
            ) from error
        raise


class _OutputError(VmctlError):
    """The output cannot be written; the store is not damaged."""


class _Output:
    """A file whose errors contain its name."""

    def __init__(self, path: str) -> None:
        self.name = "standard output" if path == "-" else path
        try:
            self._file = os.fdopen(os.dup(1) if path == "-" else os.open(path, _FLAGS, 0o666), "wb", buffering=0)
        except OSError as error:
            raise _OutputError(f"{self.name} cannot be written: {error.strerror}") from error

    def write(self, data: bytes) -> int:
        """Write all bytes and return their number. Raises _OutputError."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _OutputError(f"{self.name} could not be written: {error.strerror}") from error
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


@contextmanager
def _target(path: str) -> Iterator[_Output]:
    """Yield the file to write; a file on disk gets its name when it is complete."""
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):  # a FIFO, /dev/null
        with closing(_Output(path)) as file:
            yield file
        return
    with replacing(path) as unfinished, closing(_Output(unfinished)) as file:
        file.name = path
        yield file
