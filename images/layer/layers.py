"""New layers for the store: an EROFS file made from a tar, or from a folder of the host.

A layer is identified by the SHA-256 of its tar (image-spec, config.md: diff id). The tar itself is not kept; open_tar
recreates it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import BinaryIO

from images.layer import pack, tarindex
from images.layer.erofs import Writer
from images.layer.lookup import View
from images.layer.tarball import store_entries
from images.layer.tarindex import open_tar as open_tar
from images.layer.tree import Attributes, Tree
from images.store import store
from images.store.image import Image, ImageError, Layer
from images.store.staging import Stage
from vmctl.errors import NotFoundError


def known(stage: Stage, diff_id: str, below: Sequence[Layer] = ()) -> Layer | None:
    """Return a layer of the store, None if the store does not have it.

    It is linked into the stage, so it remains available even if its images are removed. `below`: see `from_tar`.
    """
    for key in (_hex(diff_id), _key_on(diff_id, below)):
        kept, held = store.layer_path(key), stage.path(key + ".erofs")
        with suppress(FileNotFoundError):
            for source, target in ((tarindex.index_path(kept), tarindex.index_path(held)), (kept, held)):
                with suppress(FileExistsError):
                    os.link(source, target)
            return Layer(diff_id, held, tarindex.tar_bytes(held))
    return None


def linked(stage: Stage, path: str) -> Layer:
    """Return a layer that is kept outside of the store, linked or copied into the stage. Raises OSError."""
    target = stage.path(os.path.basename(path))
    for source, link in ((tarindex.index_path(path), tarindex.index_path(target)), (path, target)):
        with suppress(FileExistsError):
            try:
                os.link(source, link)
            except OSError as error:
                if error.errno != errno.EXDEV:  # the store may be on another file system
                    raise
                shutil.copyfile(source, link)
                os.chmod(link, 0o444)
    return at(target)


def at(path: str) -> Layer:
    """Return the layer in a file that `from_folder` has written. Raises OSError if its index is missing."""
    return Layer(f"sha256:{os.path.basename(path).partition('.')[0]}", path, tarindex.tar_bytes(path))


def held(stage: Stage, image: Image) -> list[Layer]:
    """Return the image's layers, linked into the stage: they remain if the image is removed. Raises NotFoundError."""
    found: list[Layer] = []
    for layer in image.layers:
        one = known(stage, layer.digest, found)
        if one is None:
            raise NotFoundError(
                f"the image {image.name} lacks its layer {layer.digest}",
                hint=f"`vmctl image rm {image.name}`, then get it again",
            )
        found.append(one)
    return found


def from_tar(
    stage: Stage,
    stream: BinaryIO,
    *,
    below: Sequence[Layer] = (),
    diff_id: str = "",
    limit_bytes: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Layer:
    """Write a layer into the stage from an uncompressed tar, which is read once to its end, and return the layer.

    `below` are the layers under it: a folder that the tar does not describe, but has entries for, keeps the owner and
    mode that it has there. `diff_id` is the expected digest of the tar. `progress` is called with the bytes read so
    far. Raises ImageError if the tar is damaged, too large, or not valid as a layer; OSError from the host.
    """
    path = stage.path(f"{os.urandom(6).hex()}.new")
    with open(path, "x+b") as file, open(tarindex.index_path(path + ".erofs"), "x+b") as index, View(below) as view:
        source = tarindex.Recorder(stream, index, limit_bytes, progress)
        writer, tree = Writer(file.fileno()), Tree(lambda place: _of_below(view, place))
        store_entries(source, tree, writer)
        if diff_id and source.digest != diff_id:
            raise ImageError(f"the layer is not {diff_id}: its digest is {source.digest}", hint="get the image again")
        implied = tree.finish()
        if tree.deletes:
            tree.whiteout.number = writer.other(Attributes(stat.S_IFCHR))
        writer.finish(tree.root)
    key = _key_on(source.digest, below) if implied else _hex(source.digest)
    final = stage.path(key + ".erofs")
    os.chmod(path, 0o444)
    os.rename(tarindex.index_path(path + ".erofs"), tarindex.index_path(final))
    os.rename(path, final)
    return Layer(source.digest, final, source.size_bytes)


def from_folder(
    stage: Stage,
    folder: str,
    *,
    overlay: bool = False,
    newest_ns: int | None = None,
    skip: Container[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Layer:
    """Write a layer into the stage from a folder of the host and return the layer.

    `overlay`: the folder is the upper directory of an overlayfs, whose deletions become deletions of the layer.
    `newest_ns`: later modification times are replaced by this one, so that the same build gives the same digest.
    `skip`: entries to leave out with everything below them, as paths relative to the folder. `progress`: see
    `from_tar`.
    """
    tar = pack.open_folder(folder, overlay=overlay, newest_ns=newest_ns, skip=skip)
    return from_tar(stage, tar, progress=progress)


def _of_below(view: View, place: bytes) -> Attributes | bytes | None:
    """Return the attributes, in the layers below, of a folder that the layer itself does not describe."""
    node = view.find(place, follow=False)
    if node is None:
        return None
    if stat.S_ISDIR(node.attributes.mode):
        return node.attributes
    return node.target or None


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _key_on(diff_id: str, below: Sequence[Layer]) -> str:
    """Return the key of a layer that takes attributes from the layers below: on other layers it is another file."""
    return hashlib.sha256("\n".join([diff_id, *(layer.key for layer in below)]).encode()).hexdigest()
