"""The images of this host, an OCI image layout: find, list, add and remove images.

`index.json` contains the names of images, `blobs/sha256/` their manifests and configurations (image-layout.md of the
OCI image specification), `layers/` and `disks/` their contents; see documents.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from images.store import documents, layout
from images.store.config import config_document as config_document
from images.store.config import only_stored as only_stored
from images.store.config import timestamp as timestamp
from images.store.documents import document as document
from images.store.documents import layer_path as layer_path
from images.store.documents import manifest as manifest
from images.store.documents import raw_config as raw_config
from images.store.image import Image, Layer, architecture
from images.store.layout import CONFIG, MANIFEST, REF_NAME, blob_path, encoded, index, name_of, normal, put, write_index
from images.store.layout import path as path
from vmctl import leases
from vmctl.errors import ConflictError, NotFoundError, VmctlError
from vmctl.linux import durable
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from images.store.staging import Stage

_BLOBS = "blobs/sha256"
_FOLDERS = ("layers", "disks", _BLOBS)


def find(name: str) -> Image:
    """Return the image of a name, a digest, or the beginning of a digest. Raises NotFoundError with advice."""
    image = documents.image_of(layout.find(name))
    for file in (*(layer.path for layer in image.layers), *filter(None, [image.disk])):
        if not os.path.exists(file):
            raise NotFoundError(f"the image {name} lacks {file}", hint=f"`vmctl image rm {name}`, then get it again")
    return image


def lease(name: str, user: leases.User) -> Image:
    """Return an image and take a lease of it: its files are kept as long as its user exists. Raises NotFoundError."""
    with locked():
        image = find(name)
        leases.take(leases.image(image.digest), user)
    return image


def ls(*, hidden: bool = False, unnamed: bool = False) -> list[Image]:
    """Return the images sorted by name; `hidden`: also build steps, whose names begin with a dot.

    `unnamed`: also images whose name was removed while instances use them. Raises VmctlError for a damaged image.
    """
    found = []
    for one in index():
        if unnamed if not name_of(one) else hidden or name_of(one)[0] != ".":
            try:
                found.append(documents.image_of(one))
            except VmctlError:
                if one in index():
                    raise  # otherwise it was removed meanwhile
    return sorted(found)


def add(
    stage: Stage,
    name: str,
    layers: Sequence[Layer],
    config: Mapping[str, Any] | bytes,
    *,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Move layers from a stage into the store as an image, and return the image; it replaces one of the same name.

    `config` is an OCI image configuration (image-spec, config.md). Bytes are stored unchanged, so the image keeps the
    digest by which other tools know it. `annotations` are those of the manifest.
    """
    document = config if isinstance(config, bytes) else encoded(config)
    files = [layer.key + suffix for layer in layers for suffix in documents.LAYER_SUFFIXES]
    moves = {stage.path(file): path("layers", file) for file in files}
    return _add(name, moves, document, [documents.layer_descriptor(layer) for layer in layers], annotations)


def add_disk(stage: Stage, name: str, disk: str, *, annotations: Mapping[str, str] | None = None) -> Image:
    """Move a qcow2 disk image from a stage into the store as an image, and return the image; see `add`.

    `disk` is its path in the stage. Its name is the SHA-256 of its content: `<hex>.qcow2`.
    """
    digest = "sha256:" + os.path.basename(disk).removesuffix(".qcow2")
    config = {"architecture": architecture(), "os": "linux", "created": timestamp(time.time())}
    document = encoded({**config, "rootfs": {"type": "layers", "diff_ids": []}})
    item = documents.disk_descriptor(digest, os.path.getsize(disk))
    return _add(name, {disk: documents.disk_path(digest)}, document, [item], annotations)


def tag(image: Image, name: str) -> Image:
    """Give an image another name, which another image can have had, and return the image with that name."""
    with locked():
        size_bytes = os.path.getsize(blob_path(image.digest))
        entry = {"mediaType": MANIFEST, "digest": image.digest, "size": size_bytes}
        return documents.image_of(_replace(name, entry)[0])


def remove(name: str, *, force: bool = False) -> int:
    """Remove a name and the files that belong to no other name; return the number of bytes freed on the disk.

    Raises NotFoundError, and ConflictError if an instance uses the image, unless `force`: then the image loses its
    name, and its files are kept as long as the instance exists.
    """
    with locked():
        found = layout.find(name)
        given = [name_of(one) for one in index() if one["digest"] == found["digest"]]
        if name_of(found) != normal(name) and len(given) > 1:
            hint = f"`vmctl image rm {given[0]}` removes one of them"
            raise ConflictError(f"the image {name} has several names: {', '.join(given)}", hint=hint)
        if len(given) == 1 and not force and (used_by := users(found["digest"])):
            words = used_by[0].replace("snapshot ", "snapshot rm ") if " " in used_by[0] else f"rm {used_by[0]}"
            hint = f"`vmctl {words}` first, or `vmctl image rm --force {name}`: the instance keeps its files"
            raise ConflictError(f"the image {name} is used by {', '.join(used_by)}", hint=hint)
        return _replace(name_of(found), None)[1]


def delete(files: Iterable[str]) -> int:
    """Delete those of the files that belong to no image, and return the number of bytes freed on the disk."""
    with locked():
        return _collect(files)


def files(image: Image) -> set[str]:
    """Return the paths of all files of an image in the store."""
    return documents.files_of([{"digest": image.digest}])


def users(digest: str) -> list[str]:
    """Return the names of the instances that use the image of a digest."""
    return leases.users(leases.image(digest))


def unreferenced() -> list[str]:
    """Return the files of the store that belong to no image, for example after a crash."""
    needed = documents.files_of(index())
    found = [os.path.join(folder, file) for folder in map(path, _FOLDERS) for file in _listing(folder)]
    return sorted(file for file in found if file not in needed)


@contextmanager
def locked(lock: str = "lock") -> Iterator[None]:
    """Wait for a lock of the store and hold it (flock(2): it ends with its holder)."""
    os.makedirs(path(), exist_ok=True)
    fd = os.open(path(lock), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _add(
    name: str, moves: Mapping[str, str], config: bytes, items: Sequence[Any], annotations: Mapping[str, str] | None
) -> Image:
    with locked():
        for target in moves.values():
            os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            for source, target in moves.items():
                if not os.path.exists(target):
                    durable.rename(source, target)
            for folder in {os.path.dirname(target) for target in moves.values()}:
                durable.sync(folder)  # before the index names what is in it
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": put(CONFIG, config),
                "layers": list(items),
                **({"annotations": dict(annotations)} if annotations else {}),
            }
            return documents.image_of(_replace(name, put(MANIFEST, encoded(manifest)))[0])
        except BaseException:  # for example a full disk: the store remains unchanged
            blobs = [path(_BLOBS, file) for file in _listing(path(_BLOBS))]
            _collect([*moves.values(), *blobs])
            raise


def _replace(name: str, descriptor: dict[str, Any] | None) -> tuple[dict[str, Any], int]:
    """Give a name to a descriptor, or remove the name, and delete the files that no longer belong to an image.

    An image that instances use is kept without a name. Returns the descriptor with its name, and the bytes freed.
    """
    name = normal(name)
    before = index()
    kept = [one for one in before if name_of(one) not in ("", name)]
    if descriptor is not None:
        descriptor = {**descriptor, "annotations": {REF_NAME: name}}
        kept.append(descriptor)
    digests = {one["digest"] for one in kept}
    for old in before:
        if old["digest"] not in digests and users(old["digest"]):
            digests.add(old["digest"])
            kept.append({key: value for key, value in old.items() if key != "annotations"})
    gone = [old for old in before if old["digest"] not in digests]
    try:
        write_index(kept)
    except OSError as error:  # on a full disk, the removal itself makes space for the shorter index
        if descriptor is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        freed_bytes = _delete(documents.files_of(gone) - documents.files_of(kept))
        write_index(kept)
        return {}, freed_bytes
    # without `gone`, as after most additions, no other image is read
    return descriptor or {}, _collect(documents.files_of(gone)) if gone else 0


def _collect(files: Iterable[str]) -> int:
    """Delete those of the files that belong to no image, and return the number of bytes freed on the disk."""
    return _delete(set(files) - documents.files_of(index()))


def _delete(files: Iterable[str]) -> int:
    freed_bytes = 0
    for file in files:
        with suppress(FileNotFoundError):
            status = os.stat(file)
            os.unlink(file)
            freed_bytes += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return freed_bytes


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
