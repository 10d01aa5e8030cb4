"""Imports images from files: archives, layouts, tarballs and folders of a root file system, disks.

The content of a file decides what it is, not its name. All images are prepared in a stage first, so that the store gets
all images of a file or none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from images.disks import diskimage, disklayer
from images.layer import compression, layers
from images.layer.compression import limit_bytes
from images.layer.progress import Progress, meter
from images.layer.tarheaders import HEADER_BYTES, is_header
from images.store import platforms, reference, store
from images.store.image import Image, ImageConfig, ImageError, Layer
from images.store.staging import Stage, staging
from images.transfer import sources
from images.transfer.archive import Archive, Folder, Tar, is_image_archive
from images.transfer.ingest import LayerReader
from vmctl.errors import NotFoundError, SpecError
from vmctl.linux import views
from vmctl.spec.units import format_size

STDIN = "-"
_PART = 1 << 20


class Options(NamedTuple):
    """The options of an import."""

    name: str = ""  # replaces the name in the archive
    as_layer: bool = False  # read the root file system of a disk; treat any tar as a root file system
    platform: str = ""  # the image to take from a multi-platform image: `arm64`, `linux/arm/v7`; "" is the host's
    max_layer_bytes: int | None = None


class _Input(NamedTuple):
    """The file or folder that is imported."""

    path: str
    where: str  # used in messages, and for the default name of the image
    mtime: float


def import_path(path: str, options: Options, progress: Progress) -> list[Image]:
    """Store the images that a file or folder contains and return them, each under each of its names.

    `-` is standard input. Raises ImageError if the file is damaged or not an image, NotFoundError if it does not exist,
    SpecError if a name is not valid for an image; the store then stays unchanged.
    """
    if options.name:
        options = options._replace(name=reference.of_new_image(options.name))
    with staging() as stage:
        if path != STDIN and os.path.isdir(path):
            return _from_folder(stage, path, options, progress)
        with _regular_file(stage, path, progress) as (file, source):
            if _is_disk(file, source.where):
                return [_from_disk(stage, file, source, options, progress)]
            return _from_tar(stage, file, source, options, progress)


def _from_folder(stage: Stage, path: str, options: Options, progress: Progress) -> list[Image]:
    archive = Folder(path)
    if not options.as_layer and any(name in archive for name in ("oci-layout", "index.json", "manifest.json")):
        return _images(stage, archive, options, progress)
    progress(f"reading {path}")
    with views.without_links(path) as folder:
        layer = layers.from_folder(stage, folder)
    return [_single(stage, [layer], _Input(path, path, os.stat(path).st_mtime), options)]


def _is_disk(file: BinaryIO, where: str) -> bool:
    """Return whether a file, compressed or not, is a disk; rewinds the file. Raises ImageError for an appliance."""
    head = compression.plain(file, where).read(diskimage.HEAD_BYTES)
    file.seek(0)
    if not is_header(head[:HEADER_BYTES]):
        return bool(diskimage.recognise(head, where))
    if head[:100].rstrip(b"\0").lower().endswith(b".ovf"):  # the Open Virtualization Format begins with this member
        raise ImageError(
            f"{where} is an appliance (OVA): an archive of disks", hint=f"`tar -xf {where}`, then import a disk"
        )
    return False


def _from_disk(stage: Stage, file: BinaryIO, source: _Input, options: Options, progress: Progress) -> Image:
    path, name = source.path, options.name or reference.from_file(source.where)
    if compression.recognise(file.read(compression.HEAD_BYTES)):
        path = stage.path("disk.plain")
        file.seek(0)
        _decompress(file, path, source.where, options, progress)
    kind = diskimage.recognise_file(path, source.where)
    diskimage.check(path, kind, source.where)
    if options.as_layer:
        return _single(stage, [disklayer.read(stage, path, kind, progress)], source, options)
    return store.add_disk(stage, name, diskimage.to_qcow2(stage, path, kind, progress))


def _from_tar(stage: Stage, file: BinaryIO, source: _Input, options: Options, progress: Progress) -> list[Image]:
    size_bytes = os.fstat(file.fileno()).st_size
    if not options.as_layer and _is_image_archive(file, source.where):
        with _uncompressed(stage, file, source.where, options, progress) as tar:
            return _images(stage, Tar(tar, source.where), options, progress)
    report = meter(progress, f"reading {source.where}", size_bytes)
    layer = layers.from_tar(
        stage,
        compression.plain(file, source.where),
        limit_bytes=limit_bytes(size_bytes, options.max_layer_bytes),
        progress=lambda _: report(file.tell()),
    )
    return [_single(stage, [layer], source, options)]


def _is_image_archive(file: BinaryIO, where: str) -> bool:
    """Return whether a tar, compressed or not, is an image archive; rewinds the file."""
    packed = bool(compression.recognise(file.read(compression.HEAD_BYTES)))
    file.seek(0)
    # an uncompressed file is passed as it is: its contents are then skipped by seeking, not read
    found = is_image_archive(compression.plain(file, where) if packed else file, where)
    file.seek(0)
    return found


def _images(stage: Stage, archive: Archive, options: Options, progress: Progress) -> list[Image]:
    want = platforms.parse(options.platform)
    found = sources.images_in(archive, want, strict=bool(options.platform))
    names = [name for image in found for name in image.names]
    if options.name and len(found) > 1:
        raise SpecError(f"{archive.where} has {len(found)} images: {', '.join(names)}", hint="import it without --name")
    reader = LayerReader(stage, options.max_layer_bytes, progress)
    ready = [(image, reader.read(image)) for image in found]
    return [
        store.add(stage, name, image_layers, image.config_bytes, annotations=image.annotations)
        for image, image_layers in ready
        for name in ([options.name] if options.name else image.names)
    ]


def _single(stage: Stage, image_layers: list[Layer], source: _Input, options: Options) -> Image:
    """Store an image of a root file system, without a command to run, as docker-import(1) does.

    Its creation time is the modification time of the file, so that the same file gives the same image.
    """
    document = store.config_document(image_layers, ImageConfig(), store.timestamp(source.mtime))
    document["architecture"] = platforms.parse(options.platform).architecture
    return store.add(stage, options.name or reference.from_file(source.where), image_layers, document)


@contextmanager
def _regular_file(stage: Stage, path: str, progress: Progress) -> Iterator[tuple[BinaryIO, _Input]]:
    """Yield the open file; the content of a pipe is copied into the stage first. Raises NotFoundError, ImageError."""
    try:
        fd = os.dup(0) if path == STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        where = "standard input" if path == STDIN else path
        if stat.S_ISREG(status.st_mode) and path != STDIN:
            yield file, _Input(path, where, status.st_mtime)
        elif stat.S_ISFIFO(status.st_mode) or stat.S_ISREG(status.st_mode):
            spooled = stage.path("input")
            _spool(file, spooled, lambda count: progress(f"reading {where}: {format_size(count)}"))
            with open(spooled, "rb") as copy:
                yield copy, _Input(spooled, where, status.st_mtime)
        else:
            raise ImageError(f"{where} is neither a file nor a folder nor a pipe")


@contextmanager
def _uncompressed(stage: Stage, file: BinaryIO, where: str, options: Options, progress: Progress) -> Iterator[BinaryIO]:
    """Yield an archive whose members can be read in any order: a compressed archive is decompressed into the stage."""
    packed = bool(compression.recognise(file.read(compression.HEAD_BYTES)))
    file.seek(0)
    if not packed:
        yield file
        return
    spooled = stage.path("archive.tar")
    _decompress(file, spooled, where, options, progress)
    with open(spooled, "rb") as tar:
        yield tar


def _decompress(file: BinaryIO, path: str, where: str, options: Options, progress: Progress) -> None:
    size_bytes = os.fstat(file.fileno()).st_size
    report = meter(progress, f"decompressing {where}", size_bytes)
    limit = limit_bytes(size_bytes, options.max_layer_bytes)
    _spool(compression.plain(file, where), path, lambda _: report(file.tell()), limit, where)


def _spool(
    stream: BinaryIO, path: str, report: Callable[[int], None], limit: int | None = None, where: str = ""
) -> None:
    """Copy a stream into a new file. Raises ImageError if it is longer than `limit`."""
    count = 0
    with open(path, "xb", buffering=0) as file:
        while data := stream.read(_PART):
            file.write(data)
            count += len(data)
            if limit is not None and count > limit:
                raise ImageError(
                    f"{where} unpacks to more than {format_size(limit)}, the limit for its compressed size",
                    hint="if you trust the source of the image, raise the limit with --max-size",
                )
            report(count)
