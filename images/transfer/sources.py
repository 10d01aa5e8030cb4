"""Lists the images in an archive without reading their layers: names, verified documents, and the layers' positions.

Reads OCI image layouts (image-spec's image-layout.md) and docker's archives, whose `manifest.json` lists the images. A
newer docker archive is also an OCI layout and is read as a layout, which has a digest for every file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, NamedTuple

import msgspec

from images.layer.readers import verified
from images.store import platforms, reference
from images.store.image import ImageError
from images.transfer import oci
from images.transfer.archive import Archive, read_document
from vmctl.errors import SpecError

_NESTING_MAX = 3  # depth of nested indexes
_HEX_NAME = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?")


class SourceLayer(NamedTuple):
    """A layer that can be read from its source."""

    diff_id: str
    open: Callable[[], tuple[BinaryIO, int]]  # returns the compressed content and its size in bytes
    digest: str = ""  # digest of the compressed content; "" if unknown
    size_bytes: int = -1  # size in the descriptor; -1 if unknown


class SourceImage(NamedTuple):
    """An image that can be read from its source."""

    names: tuple[str, ...]
    config_bytes: bytes
    config: oci.Config
    layers: tuple[SourceLayer, ...]
    annotations: dict[str, str]


class _Saved(msgspec.Struct):
    """An image in docker's manifest.json."""

    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


def images_in(archive: Archive, want: platforms.Platform, *, strict: bool) -> list[SourceImage]:
    """Return the images of an archive. Raises ImageError.

    Of a multi-platform image, only the image for the wanted platform is returned. An image for one other platform is
    refused only if `strict`.
    """
    if "index.json" in archive:
        found = _in_layout(archive, want)
    elif "manifest.json" in archive:
        found = _in_docker_archive(archive)
    else:
        hint = "`docker save` of docker 1.10 or later writes one" if "repositories" in archive else ""
        raise ImageError(
            f"{archive.where} is not an image archive, or is truncated: it has no index.json and no manifest.json",
            hint=hint,
        )
    if not found:
        raise ImageError(f"{archive.where} contains no image")
    for image in found:
        if strict and image.config.architecture != want.architecture:
            raise ImageError(f"{image.names[0]} in {archive.where} is for {image.config.architecture}")
    return found


def _in_layout(archive: Archive, want: platforms.Platform) -> list[SourceImage]:
    top = oci.parse(oci.Index, read_document(archive, "index.json"), f"index.json in {archive.where}")
    groups: dict[str, list[oci.Descriptor]] = {}
    for item in top.manifests:
        groups.setdefault(_name(item, archive.where), []).append(item)
    found: dict[str, SourceImage] = {}
    for name, items in groups.items():
        descriptor = items[0]
        if len({item.digest for item in items}) > 1:
            if not any(item.platform for item in items):
                raise ImageError(
                    f"{archive.where} has {len(items)} images with the name {name}",
                    hint="save each under a different name",
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
            return reference.of_new_image(full)
        except SpecError:
            pass
    return reference.in_layout(annotations.get(oci.REF_NAME, ""), where)


def _image(archive: Archive, descriptor: oci.Descriptor, want: platforms.Platform, name: str) -> SourceImage:
    for _ in range(_NESTING_MAX):
        data = _blob_document(archive, descriptor)
        what = f"the manifest {descriptor.digest} in {archive.where}"
        if not is_index(descriptor, data):
            break
        descriptor = oci.choose(oci.parse(oci.Index, data, what), want, f"{name} in {archive.where}")
    else:
        raise ImageError(f"{name} in {archive.where} nests indexes too deeply")
    manifest = oci.manifest(data, what)
    config_bytes = _blob_document(archive, manifest.config)
    config = oci.config(config_bytes, manifest.config, len(manifest.layers))
    return SourceImage(
        (name,),
        config_bytes,
        config,
        tuple(
            SourceLayer(diff_id, partial(archive.open, oci.blob_name(layer.digest)), layer.digest, layer.size)
            for diff_id, layer in zip(config.rootfs.diff_ids, manifest.layers, strict=True)
        ),
        manifest.annotations or {},
    )


def is_index(descriptor: oci.Descriptor, data: bytes) -> bool:
    """Return whether a document is an index rather than a manifest, judged by its keys if it has no media type."""
    if descriptor.media_type in oci.INDEXES:
        return True
    if descriptor.media_type in oci.MANIFESTS:
        return False
    if descriptor.media_type:
        raise ImageError(f"{descriptor.digest} is not an image manifest but {descriptor.media_type}")
    return b'"manifests"' in data


def _blob_document(archive: Archive, descriptor: oci.Descriptor) -> bytes:
    data = read_document(archive, oci.blob_name(descriptor.digest))
    what = f"the document {descriptor.digest} in {archive.where}"
    if len(data) != descriptor.size:
        raise ImageError(f"{what} has {len(data)} bytes, not the {descriptor.size} in its descriptor")
    return verified(data, descriptor.digest, f"the document in {archive.where}")


def _in_docker_archive(archive: Archive) -> list[SourceImage]:
    listed = oci.parse(list[_Saved], read_document(archive, "manifest.json"), f"manifest.json in {archive.where}")
    return [_saved(archive, item) for item in listed]


def _saved(archive: Archive, item: _Saved) -> SourceImage:
    data = read_document(archive, item.config)
    if named := _HEX_NAME.fullmatch(item.config):
        verified(data, f"sha256:{named[1]}", f"{item.config} in {archive.where}")
    config = oci.parse_config(data, f"{item.config} in {archive.where}")
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(item.layers):
        raise ImageError(
            f"manifest.json in {archive.where} lists {len(item.layers)} layers, the configuration {len(diff_ids)}"
        )
    layers = (
        SourceLayer(diff_id, partial(archive.open, name)) for diff_id, name in zip(diff_ids, item.layers, strict=True)
    )
    names = tuple(reference.of_new_image(tag) for tag in item.tags or ()) or (reference.from_file(archive.where),)
    return SourceImage(names, data, config, tuple(layers), {})
