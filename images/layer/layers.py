"""Layers on their way into the store: from a tar, or from a folder of the host, to the EROFS file.

A layer is named by the SHA-256 of its tar (image-spec, config.md: diff id). The tar itself is not kept; open_tar gives
it out again.
"""

from __future__ import annotations

import hashlib
import os
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
from images.store.image import ImageError, Layer
from images.store.staging import Stage


def known(stage: Stage, diff_id: str, below: Sequence[Layer] = ()) -> Layer | None:
    """Return a layer that the store has, None where it has not.

    It is linked into the stage, so that a removal of its images meanwhile does no harm. `below`: see `from_tar`.
    """
    for key in (_hex(diff_id), _key_on(diff_id, below)):
        kept, held = store.layer_path(key), stage.path(key + ".erofs")
        with suppress(FileNotFoundError):
            for source, target in ((tarindex.index_path(kept), tarindex.index_path(held)), (kept, held)):
                with suppress(FileExistsError):
                    os.link(source, target)
            return Layer(diff_id, held, tarindex.tar_bytes(held))
    return None


def from_tar(
    stage: Stage,
    stream: BinaryIO,
    *,
    below: Sequence[Layer] = (),
    diff_id: str = "",
    limit_bytes: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Layer:
    """Write a layer into the stage from an uncompressed tar, read once and to its end, and return it.

    `below` are the layers it will lie on: a folder that the tar does not describe, but has something in, keeps the
    owner and mode it has there. `diff_id` is what the tar's digest has to be. `progress` is told the bytes read so far.
    Raises ImageError for a tar that is damaged, too large or none that a layer may be; OSError by the host.
    """
    path = stage.path(f"{os.urandom(6).hex()}.new")
    with open(path, "x+b") as file, open(tarindex.index_path(path + ".erofs"), "x+b") as index, View(below) as view:
        source = tarindex.Recorder(stream, index, limit_bytes, progress)
        writer, tree = Writer(file.fileno()), Tree(lambda place: _of_below(view, place))
        store_entries(source, tree, writer)
        if diff_id and source.digest != diff_id:
            raise ImageError(f"the layer is not {diff_id}: its digest is {source.digest}", hint="get the image again")
        implied = tree.settle()
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
    """Write a layer into the stage from a folder of the host and return it.

    `overlay`: the folder is the upper one of an overlayfs, whose deletions become those of a layer. `newest_ns`: what
    was changed later counts as changed then, so that the same build gives the same digest. `skip`: what is left out,
    with all below it, as paths from the folder. `progress`: see `from_tar`.
    """
    tar = pack.open_folder(folder, overlay=overlay, newest_ns=newest_ns, skip=skip)
    return from_tar(stage, tar, progress=progress)


def _of_below(view: View, place: bytes) -> Attributes | bytes | None:
    """Return what the layers below say of a folder that the layer itself does not describe."""
    node = view.find(place, follow=False)
    if node is None:
        return None
    if stat.S_ISDIR(node.attributes.mode):
        return node.attributes
    return node.target or None


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _key_on(diff_id: str, below: Sequence[Layer]) -> str:
    """Return the key of a layer that takes something from those below it: it is another file on others."""
    return hashlib.sha256("\n".join([diff_id, *(layer.key for layer in below)]).encode()).hexdigest()
