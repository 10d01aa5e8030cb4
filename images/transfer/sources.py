"""The images in an archive, before any layer is read: names, verified documents, and where the layers are.

OCI image layouts (image-spec's image-layout.md) and docker's archives, whose `manifest.json` lists the images; the
newer ones are both, and are then read as the former, which has a digest for everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, NamedTuple

import msgspec

from images.layer.readers import verified
from images.store import reference
from images.store.image import ImageError
from images.transfer import oci
from images.transfer.archive import Archive, document
from vmctl.errors import SpecError

_NESTING_MAX = 3  # indexes inside of indexes
_HEX_NAME = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?")


class IncomingLayer(NamedTuple):
    """A layer that can be read."""

    diff_id: str
    open: Callable[[], tuple[BinaryIO, int]]  # returns the content as it is packed, and its size in bytes
    digest: str = ""  # of what `open` gives; "" where nothing says
    size_bytes: int = -1  # as it is said to be


class Incoming(NamedTuple):
    """An image that can be read."""

    names: tuple[str, ...]
    config_bytes: bytes
    config: oci.Config
    layers: tuple[IncomingLayer, ...]
    annotations: dict[str, str]


class _Saved(msgspec.Struct):
    """One image in docker's manifest.json."""

    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


def images_in(archive: Archive, want: oci.Wanted, *, strict: bool) -> list[Incoming]:
    """Return the images of an archive. Raises ImageError.

    Of several for different platforms the wanted one is taken; a single one for another platform is refused only if
    `strict`.
    """
    if "index.json" in archive:
        found = _in_layout(archive, want)
    elif "manifest.json" in archive:
        found = _in_docker_archive(archive)
    else:
        hint = "`docker save` of docker 1.10 or later writes one" if "repositories" in archive else ""
        raise ImageError(
            f"{archive.where} has no index.json and no manifest.json: it is no archive of images, or is cut off",
            hint=hint,
        )
    if not found:
        raise ImageError(f"{archive.where} holds no image")
    for image in found:
        if strict and image.config.architecture != want.architecture:
            raise ImageError(f"{image.names[0]} in {archive.where} is for {image.config.architecture}")
    return found


def _in_layout(archive: Archive, want: oci.Wanted) -> list[Incoming]:
    top = oci.parse(oci.Index, document(archive, "index.json"), f"index.json in {archive.where}")
    groups: dict[str, list[oci.Descriptor]] = {}
    for item in top.manifests:
        groups.setdefault(_name(item, archive.where), []).append(item)
    found: dict[str, Incoming] = {}
    for name, items in groups.items():
        descriptor = items[0]
        if len({item.digest for item in items}) > 1:
            if not any(item.platform for item in items):
                raise ImageError(
                    f"{archive.where} has {len(items)} images that it calls {name}", hint="save them by name"
                )
            descriptor = oci.choose(oci.Index(items), want, f"{name} in {archive.where}")
        image = _image(archive, descriptor, want, name)
        before = found.get(descriptor.digest)
        found[descriptor.digest] = image._replace(names=(*before.names, name)) if before else image
    return list(found.values())


def _name(item: oci.Descriptor, where: str) -> str:
    annotations = item.annotations or {}
    full = annotations.get(oci.CONTAINERD_NAME, "")
    if full:
        try:
            return reference.familiar(full)
        except SpecError:
            pass
    return reference.in_layout(annotations.get(oci.REF_NAME, ""), where)


def _image(archive: Archive, descriptor: oci.Descriptor, want: oci.Wanted, name: str) -> Incoming:
    for _ in range(_NESTING_MAX):
        data = _blob_document(archive, descriptor)
        what = f"the manifest {descriptor.digest} in {archive.where}"
        if not is_index(descriptor, data):
            break
        descriptor = oci.choose(oci.parse(oci.Index, data, what), want, f"{name} in {archive.where}")
    else:
        raise ImageError(f"{name} in {archive.where} is an index in an index in an index")
    manifest = oci.manifest(data, what)
    config_bytes = _blob_document(archive, manifest.config)
    config = oci.config(config_bytes, manifest.config, len(manifest.layers))
    return Incoming(
        (name,),
        config_bytes,
        config,
        tuple(
            IncomingLayer(diff_id, partial(archive.open, _blob_name(layer.digest)), layer.digest, layer.size)
            for diff_id, layer in zip(config.rootfs.diff_ids, manifest.layers, strict=True)
        ),
        manifest.annotations or {},
    )


def is_index(descriptor: oci.Descriptor, data: bytes) -> bool:
    """Return whether a document is an index rather than a manifest; the older ones do not say so themselves."""
    if descriptor.media_type in oci.INDEXES:
        return True
    if descriptor.media_type in oci.MANIFESTS:
        return False
    if descriptor.media_type:
        raise ImageError(f"{descriptor.digest} is no image manifest but {descriptor.media_type}")
    return b'"manifests"' in data


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _blob_document(archive: Archive, descriptor: oci.Descriptor) -> bytes:
    data = document(archive, _blob_name(descriptor.digest))
    what = f"the document {descriptor.digest} in {archive.where}"
    if len(data) != descriptor.size:
        raise ImageError(f"{what} has {len(data)} bytes, not the {descriptor.size} it is said to have")
    return verified(data, descriptor.digest, what)


def _in_docker_archive(archive: Archive) -> list[Incoming]:
    listed = oci.parse(list[_Saved], document(archive, "manifest.json"), f"manifest.json in {archive.where}")
    return [_saved(archive, item) for item in listed]


def _saved(archive: Archive, item: _Saved) -> Incoming:
    data = document(archive, item.config)
    if named := _HEX_NAME.fullmatch(item.config):
        verified(data, f"sha256:{named[1]}", f"{item.config} in {archive.where}")
    config = oci.unnamed_config(data, f"{item.config} in {archive.where}")
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(item.layers):
        raise ImageError(
            f"manifest.json in {archive.where} lists {len(item.layers)} layers, the configuration {len(diff_ids)}"
        )
    layers = (
        IncomingLayer(diff_id, partial(archive.open, name)) for diff_id, name in zip(diff_ids, item.layers, strict=True)
    )
    names = tuple(reference.familiar(tag) for tag in item.tags or ()) or (reference.from_file(archive.where),)
    return Incoming(names, data, config, tuple(layers), {})
