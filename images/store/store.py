"""The images of this host: an OCI image layout whose layers are kept as EROFS files.

`index.json` names the images, `blobs/sha256/` holds manifests and configurations; see image-layout.md of the OCI
image specification. A manifest describes each layer by its tar; the bytes kept are `layers/<key>.erofs`, made from
that tar, because an EROFS file can be mounted by a container and attached to a guest, and a tar can be neither.
An image that is a whole disk has its one file in `disks/`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from images.store import leases
from images.store.config import config_document as config_document
from images.store.config import read_config
from images.store.config import timestamp as timestamp
from images.store.image import Image, Layer, architecture
from images.store.layout import (
    CONFIG,
    MANIFEST,
    REF_NAME,
    blob_path,
    encoded,
    get,
    index,
    name_of,
    put,
    write_index,
)
from images.store.layout import path as path
from vmctl.errors import ConflictError, NotFoundError, VmctlError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from images.store.staging import Stage

TAR = "application/vnd.oci.image.layer.v1.tar"
DISK = "application/vnd.vmctl.disk.v1+qcow2"
KEY = "org.vmctl.layer"  # of a layer's descriptor: the file's name, where it is not the diff id


def layer_path(key: str) -> str:
    """Return where the EROFS file of a layer is kept, whether it is there or not."""
    return path("layers", key + ".erofs")


def normal(name: str) -> str:
    """Return a name as the store has it: `:latest` is not written."""
    return name.removesuffix(":latest")


def find(name: str) -> Image:
    """Return the image of a name, of a digest or the beginning of one. Raises NotFoundError with the nearest name."""
    image = _image(_descriptor(name))
    for file in (*(layer.path for layer in image.layers), *filter(None, [image.disk])):
        if not os.path.exists(file):
            raise NotFoundError(f"the image {name} lacks {file}", hint="remove it and get it again")
    return image


def lease(name: str, user: leases.User) -> Image:
    """Return the image of a name or digest, which from now on stays as long as its user does. Raises NotFoundError."""
    with locked():
        image = find(name)
        leases.take(leases.image(image.digest), user)
    return image


def ls(*, hidden: bool = False, unnamed: bool = False) -> list[Image]:
    """Return the images by name; `hidden`: also those of builds, whose names begin with a dot; `unnamed`: also others.

    Those are what instances were started from before a name was taken away. Raises VmctlError for a damaged one.
    """
    found = []
    for one in index():
        if unnamed if not name_of(one) else hidden or name_of(one)[0] != ".":
            try:
                found.append(_image(one))
            except VmctlError:
                if one in index():
                    raise  # else it has been removed meanwhile
    return sorted(found)


def add(
    stage: Stage,
    name: str,
    layers: Sequence[Layer],
    config: Mapping[str, Any] | bytes,
    *,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Move layers from a stage into the store, as an image, and return it; it replaces one of the same name.

    `config` is an OCI image configuration (image-spec, config.md); bytes are kept as they are, and so is the digest by
    which other tools know the image. Annotations are the manifest's.
    """
    document = config if isinstance(config, bytes) else encoded(config)
    items = [{"mediaType": TAR, "digest": layer.digest, "size": layer.size_bytes, **_key_of(layer)} for layer in layers]
    names = [layer.key + suffix for layer in layers for suffix in _SUFFIXES]
    moves = {stage.path(file): path("layers", file) for file in names}
    return _add(name, moves, document, items, annotations)


def add_disk(stage: Stage, name: str, disk: str, *, annotations: Mapping[str, str] | None = None) -> Image:
    """Move a disk image in qcow2 form from a stage into the store, as an image, and return it; see `add`.

    `disk` is its path in the stage, which is named by the SHA-256 of its content: `<hex>.qcow2`.
    """
    hex_digest = os.path.basename(disk).removesuffix(".qcow2")
    item = {"mediaType": DISK, "digest": f"sha256:{hex_digest}", "size": os.path.getsize(disk)}
    config = {"architecture": architecture(), "os": "linux", "created": timestamp(time.time())}
    moves = {disk: path("disks", f"{hex_digest}.qcow2")}
    return _add(name, moves, encoded({**config, "rootfs": {"type": "layers", "diff_ids": []}}), [item], annotations)


def tag(image: Image, name: str) -> Image:
    """Give an image one more name, which may have been another's, and return it under that name."""
    with locked():
        entry = {"mediaType": MANIFEST, "digest": image.digest, "size": _size(image.digest)}
        return _image(_replace(name, entry)[0])


def remove(name: str, *, force: bool = False, others: Mapping[str, Sequence[str]] = {}) -> int:
    """Remove a name, and what no other name has; return how many bytes of the disk that freed.

    `others` are users without a lease, by the name or the digest of their image.

    Raises NotFoundError; ConflictError where an instance uses it, unless `force`: what it needs then goes with it.
    """
    with locked():
        found = _descriptor(name)
        names = [name_of(one) for one in index() if one["digest"] == found["digest"]]
        if name_of(found) != normal(name) and len(names) > 1:
            raise ConflictError(f"the image {name} has several names: {', '.join(names)}", hint="give one of them")
        used_by = sorted({*users(found["digest"]), *others.get(found["digest"], ()), *others.get(names[0], ())})
        if len(names) == 1 and not force and used_by:
            hint = f"`vmctl rm {used_by[0]}` first, or `-f`: it keeps what it needs"
            raise ConflictError(f"the image {name} is used by {', '.join(used_by)}", hint=hint)
        return _replace(name_of(found), None)[1]


def delete(doomed: Sequence[str]) -> int:
    """Delete those of the files that no image needs, and return how many bytes of the disk that freed."""
    with locked():
        return _collect(doomed)


def document(image: Image) -> dict[str, Any]:
    """Return the OCI image configuration as it came."""
    config: dict[str, Any] = json.loads(raw_config(image))
    return config


def raw_config(image: Image) -> bytes:
    """Return the OCI image configuration's bytes as they came; their SHA-256 is what docker calls the image's id."""
    with open(blob_path(manifest(image)["config"]["digest"]), "rb") as file:
        return file.read()


def manifest(image: Image) -> dict[str, Any]:
    """Return the store's manifest of an image."""
    return get(image.digest)


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


def files(image: Image) -> set[str]:
    """Return the paths of all that an image has in the store."""
    return _files([{"digest": image.digest}])


def users(digest: str) -> list[str]:
    """Return the instances that use the image of that digest."""
    return leases.users(leases.image(digest))


def unreferenced() -> list[str]:
    """Return the files of the store that no image needs: what a crash, or a removal under an instance, has left."""
    needed = _files(index())
    found = [os.path.join(folder, name) for folder in map(path, _FOLDERS) for name in _listing(folder)]
    return sorted(file for file in found if file not in needed)


_DIGEST = r"(sha256:)?[0-9a-f]{6,64}"  # as much of one as docker's users type, or more
_FOLDERS = ("layers", "disks", "blobs/sha256")
_SUFFIXES = (".erofs", ".tar-index")


def _add(
    name: str, moves: Mapping[str, str], config: bytes, items: Sequence[Any], annotations: Mapping[str, str] | None
) -> Image:
    with locked():
        for target in moves.values():
            os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            for source, target in moves.items():
                if not os.path.exists(target):
                    os.rename(source, target)
            document = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": put(CONFIG, config),
                "layers": list(items),
                **({"annotations": dict(annotations)} if annotations else {}),
            }
            return _image(_replace(name, put(MANIFEST, encoded(document)))[0])
        except BaseException:
            blobs = path("blobs", "sha256")
            _collect(
                [*moves.values(), *(os.path.join(blobs, name) for name in _listing(blobs))]
            )  # the store as it was, on a full disk for instance
            raise


def _key_of(layer: Layer) -> dict[str, Any]:
    return {} if layer.key == layer.digest.partition(":")[2] else {"annotations": {KEY: layer.key}}


def _replace(name: str, descriptor: dict[str, Any] | None) -> tuple[dict[str, Any], int]:
    """Give a name to a descriptor, or to none, and delete the files that no image has any more.

    The image that an instance was started from stays, without a name, until the instance is gone. Return the
    descriptor with its name, and the bytes freed.
    """
    name = normal(name)
    before = index()
    kept = [one for one in before if name_of(one) not in ("", name)]
    if descriptor is not None:
        descriptor = {**descriptor, "annotations": {REF_NAME: name}}
        kept.append(descriptor)
    left = {one["digest"] for one in kept}
    for old in before:
        if old["digest"] not in left and users(old["digest"]):
            left.add(old["digest"])
            kept.append({key: value for key, value in old.items() if key != "annotations"})
    write_index(kept)
    gone = [old for old in before if old["digest"] not in left]
    return descriptor or {}, _collect(sorted(_files(gone))) if gone else 0  # an addition looks at no other image


def _collect(doomed: Sequence[str]) -> int:
    """Delete those of the files that no image has, and return how many bytes of the disk that freed."""
    freed_bytes = 0
    for file in set(doomed) - _files(index()):
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


def _size(digest: str) -> int:
    return os.path.getsize(blob_path(digest))


def _image(descriptor: dict[str, Any]) -> Image:
    name = name_of(descriptor) or descriptor["digest"]
    try:
        manifest = get(descriptor["digest"])
        document = get(manifest["config"]["digest"])
    except VmctlError as error:
        raise VmctlError(f"the image {name} is damaged: {error}", hint=f"`vmctl image rm {name}` removes it") from None
    items = manifest["layers"]
    disks = [path("disks", item["digest"].partition(":")[2] + ".qcow2") for item in items if item["mediaType"] == DISK]
    return Image(
        name=name_of(descriptor),
        digest=descriptor["digest"],
        architecture=document["architecture"],
        layers=() if disks else tuple(map(_layer, items)),
        config=read_config(document),
        created=document.get("created", ""),
        disk=disks[0] if disks else "",
    )


def _layer(item: dict[str, Any]) -> Layer:
    key = (item.get("annotations") or {}).get(KEY) or item["digest"].partition(":")[2]
    return Layer(item["digest"], layer_path(key), item["size"])


def _files(descriptors: Sequence[dict[str, Any]]) -> set[str]:
    """Return the paths of all files of some images."""
    found: set[str] = set()
    for descriptor in descriptors:
        found.add(blob_path(descriptor["digest"]))
        try:
            image = _image(descriptor)
        except VmctlError:
            continue  # damaged: it cannot be used, but it can be removed
        found.add(blob_path(get(image.digest)["config"]["digest"]))
        found |= {os.path.splitext(layer.path)[0] + suffix for layer in image.layers for suffix in _SUFFIXES}
        found |= {image.disk} if image.disk else set()
    return found


def _descriptor(name: str) -> dict[str, Any]:
    """Return the index's entry of a name or digest. Raises NotFoundError."""
    descriptors = index()
    for one in descriptors:
        if name_of(one) == normal(name) or one["digest"] == name:
            return one
    if re.fullmatch(_DIGEST, name):
        found = [one for one in descriptors if one["digest"].startswith("sha256:" + name.removeprefix("sha256:"))]
        if len({one["digest"] for one in found}) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"several images have a digest that begins with {name}", hint="give more of it")
    raise NotFoundError(f"there is no image {name}", hint=_advice(name, list(map(name_of, descriptors))))


def _advice(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    from images.store import shipped

    buildable = ["tiny", *shipped.names()]
    if name in buildable:
        return f"`vmctl image build {name}` makes it"
    named = [one for one in known if one and not one.startswith(".")]
    if nearest := get_close_matches(name, [*named, *buildable], n=1, cutoff=0.5):
        return f"did you mean {nearest[0]}? `vmctl image ls` lists what there is"
    return "`vmctl image ls` lists what there is, `vmctl image build tiny` makes the smallest one"
