"""The documents of an image: from its descriptor in the index to an `Image`, its configuration and its files.

A manifest describes each layer by its tar. The stored bytes are `layers/<key>.erofs`, made from that tar: an EROFS file
can be mounted by a container and attached to a guest, a tar cannot. A disk image has one file in `disks/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from images.store.config import read_config
from images.store.image import Image, Layer
from images.store.layout import blob_path, get, name_of, path
from vmctl.errors import VmctlError
from vmctl.light import json
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

TAR = "application/vnd.oci.image.layer.v1.tar"
DISK = "application/vnd.vmctl.disk.v1+qcow2"
KEY = "org.vmctl.layer"  # annotation of a layer's descriptor: the name of its file, if that is not the diff id

LAYER_SUFFIXES = (".erofs", ".tar-index")


def layer_path(key: str) -> str:
    """Return the path of a layer's EROFS file, even if the store does not have it."""
    return path("layers", key + ".erofs")


def disk_path(digest: str) -> str:
    """Return the path of a disk image, even if the store does not have it."""
    return path("disks", digest.partition(":")[2] + ".qcow2")


def layer_descriptor(layer: Layer) -> dict[str, Any]:
    """Return the descriptor of a layer for a manifest."""
    key = {} if layer.key == _hex(layer.digest) else {"annotations": {KEY: layer.key}}
    return {"mediaType": TAR, "digest": layer.digest, "size": layer.size_bytes, **key}


def disk_descriptor(digest: str, size_bytes: int) -> dict[str, Any]:
    """Return the descriptor of a disk for a manifest."""
    return {"mediaType": DISK, "digest": digest, "size": size_bytes}


def image_of(descriptor: dict[str, Any]) -> Image:
    """Return the image of a descriptor in the index. Raises VmctlError if it is damaged."""
    try:
        return _image_of(descriptor)
    except (VmctlError, LookupError, TypeError, ValueError, AttributeError) as error:
        name = name_of(descriptor) or descriptor["digest"]
        reason = str(error) if isinstance(error, VmctlError) else "its manifest or configuration has another form"
        raise VmctlError(f"the image {name} is damaged: {reason}", hint=f"`vmctl image rm {name}` removes it") from None


def _image_of(descriptor: dict[str, Any]) -> Image:
    manifest = get(descriptor["digest"])
    document = get(manifest["config"]["digest"])
    items = manifest["layers"]
    disks = [disk_path(item["digest"]) for item in items if item["mediaType"] == DISK]
    return Image(
        name=name_of(descriptor),
        digest=descriptor["digest"],
        architecture=document["architecture"],
        layers=() if disks else tuple(map(_layer, items)),
        config=read_config(document),
        created=document.get("created") or "",
        disk=disks[0] if disks else "",
    )


def manifest(image: Image) -> dict[str, Any]:
    """Return the store's manifest of an image."""
    return get(image.digest)


def raw_config(image: Image) -> bytes:
    """Return the original bytes of the OCI image configuration; their SHA-256 is Docker's image id."""
    with open(blob_path(manifest(image)["config"]["digest"]), "rb") as file:
        return file.read()


def document(image: Image) -> dict[str, Any]:
    """Return the OCI image configuration with all its keys."""
    config: dict[str, Any] = json.loads(raw_config(image))
    return config


def files_of(descriptors: Iterable[dict[str, Any]]) -> set[str]:
    """Return the paths of all files of images: blobs, layers and disks."""
    found: set[str] = set()
    for descriptor in descriptors:
        found.add(blob_path(descriptor["digest"]))
        try:
            image = image_of(descriptor)
        except VmctlError:
            continue  # it is damaged: it cannot be used, but it can be removed
        found.add(blob_path(manifest(image)["config"]["digest"]))
        found |= {os.path.splitext(layer.path)[0] + suffix for layer in image.layers for suffix in LAYER_SUFFIXES}
        found |= {image.disk} if image.disk else set()
    return found


def _layer(item: dict[str, Any]) -> Layer:
    key = (item.get("annotations") or {}).get(KEY) or _hex(item["digest"])
    return Layer(item["digest"], layer_path(key), item["size"])


def _hex(digest: str) -> str:
    return digest.partition(":")[2]
