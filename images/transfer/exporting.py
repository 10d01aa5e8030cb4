"""Writes images as an OCI archive, as an archive for `docker load`, or as a layout that skopeo pushes.

Layers are exported as their original tars and the configuration as its original bytes, so all digests stay the same,
and the same image gives the same archive. Docker's form is the OCI archive plus the `manifest.json` that `docker load`
reads; docker itself writes this form since version 25.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple, Protocol

from images.layer import layers
from images.layer.progress import Progress, meter
from images.layer.readers import VerifiedStream
from images.store import layout, reference, store
from images.store.documents import TAR
from images.store.image import Image, Layer
from images.store.staging import Stage
from images.transfer import oci
from vmctl.errors import SpecError

FORMS = ("oci", "docker")
_PART = 1 << 20
_GZIP_LEVEL = 6


class Target(Protocol):
    """The destination of an archive."""

    def write(self, data: bytes, /) -> int:
        """Write all of the data and return its length."""


class _Content(Protocol):
    """The content of a file of an archive."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class _File(NamedTuple):
    """A file of an archive."""

    name: str
    size_bytes: int
    open: Callable[[], _Content]


def check(image: Image) -> None:
    """Raise SpecError if the image is a disk and so has no layers to export."""
    if image.disk:
        raise SpecError(
            f"the image {image.name} is a disk and has no layers",
            hint=f"it is the file {image.disk}; `vmctl image import --as-layer` makes a layer of its file system",
        )


def write_archive(
    image: Image, file: Target, stage: Stage, progress: Progress, *, form: str = "oci", compress: str = "none"
) -> None:
    """Write an archive of the image to an open file. Raises ImageError if a layer in the store is damaged."""
    written = 0
    for name in ("blobs/", "blobs/sha256/"):
        written += file.write(_header(name, tarfile.DIRTYPE, 0o755, 0))
    for item in _files(image, stage, form, compress, progress):
        written += file.write(_header(item.name, tarfile.REGTYPE, 0o644, item.size_bytes))
        written += _copy(item, file)
        written += file.write(bytes(-written % tarfile.BLOCKSIZE))
    file.write(bytes(2 * tarfile.BLOCKSIZE))


def write_layout(image: Image, folder: str, stage: Stage, progress: Progress) -> int:
    """Write an OCI layout of the image into a new folder and return its size in bytes."""
    os.makedirs(os.path.join(folder, "blobs", "sha256"))
    written = 0
    for item in _files(image, stage, "oci", "none", progress):
        with open(os.path.join(folder, item.name), "xb") as file:
            written += _copy(item, file)
    return written


def _files(image: Image, stage: Stage, form: str, compress: str, progress: Progress) -> Iterator[_File]:
    """Yield the files of an archive, each after the files that it refers to."""
    check(image)
    descriptors: dict[str, dict[str, Any]] = {}
    for number, layer in enumerate(image.layers, 1):
        if layer.digest in descriptors:
            continue
        report = meter(progress, f"layer {number} of {len(image.layers)}", layer.size_bytes)
        file, descriptors[layer.digest] = _layer(layer, stage, compress, report)
        yield file
    config = store.raw_config(image)
    manifest = {
        "schemaVersion": 2,
        "mediaType": layout.MANIFEST,
        "config": _descriptor(layout.CONFIG, config),
        "layers": [descriptors[layer.digest] for layer in image.layers],
        **({"annotations": annotations} if (annotations := store.manifest(image).get("annotations")) else {}),
    }
    manifest_bytes = _json(manifest)
    names = _names(image)
    index_entry = {
        **_descriptor(layout.MANIFEST, manifest_bytes),
        "platform": {"architecture": image.architecture, "os": "linux"},
        "annotations": names.annotations,
    }
    index = {"schemaVersion": 2, "mediaType": layout.INDEX, "manifests": [index_entry]}
    yield _memory(oci.blob_name(_digest(config)), config)
    yield _memory(oci.blob_name(_digest(manifest_bytes)), manifest_bytes)
    yield _memory("index.json", _json(index))
    if form == "docker":
        blobs = [oci.blob_name(descriptors[layer.digest]["digest"]) for layer in image.layers]
        saved = {"Config": oci.blob_name(_digest(config)), "RepoTags": names.tags, "Layers": blobs}
        yield _memory("manifest.json", json.dumps([saved], separators=(",", ":")).encode())
    yield _memory("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


class _Names(NamedTuple):
    annotations: dict[str, str]
    tags: list[str]


def _names(image: Image) -> _Names:
    """Return the image's name as docker writes it in archives: the full name, and the tag."""
    try:
        ref = reference.parse(image.name)
    except SpecError:  # a name that is valid only in the store
        return _Names({oci.REF_NAME: image.name}, [])
    if ref.digest:
        return _Names({oci.CONTAINERD_NAME: ref.full}, [])
    short = ref.familiar if ref.tag != reference.LATEST else f"{ref.familiar}:{reference.LATEST}"
    return _Names({oci.CONTAINERD_NAME: ref.full, oci.REF_NAME: ref.tag}, [short])


def _layer(layer: Layer, stage: Stage, compress: str, report: Callable[[int], None]) -> tuple[_File, dict[str, Any]]:
    """Return a layer's file and its descriptor in the manifest."""
    digest, size_bytes, media_type = layer.digest, layer.size_bytes, TAR
    opener: Callable[[], _Content] = partial(_tar, layer, report)
    if compress == "gzip":
        path = stage.path(f"{layer.key}.tar.gz")
        digest, size_bytes = _gzip(layer, path, report)
        media_type, opener = TAR + "+gzip", lambda: open(path, "rb")  # noqa: SIM115  # the caller closes it
    return _File(oci.blob_name(digest), size_bytes, opener), {
        "mediaType": media_type,
        "digest": digest,
        "size": size_bytes,
    }


def _tar(layer: Layer, report: Callable[[int], None]) -> VerifiedStream:
    what = f"the layer {layer.digest} in the store"
    tar = layers.open_tar(layer)
    return VerifiedStream(tar, what, digest=layer.digest, size_bytes=layer.size_bytes, progress=report)


def _gzip(layer: Layer, path: str, report: Callable[[int], None]) -> tuple[str, int]:
    """Write a layer's tar gzipped, without time and name so that the bytes are reproducible; return digest and size."""
    state, size_bytes = hashlib.sha256(), 0
    deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    with open(path, "xb") as file, closing(_tar(layer, report)) as tar:
        while True:
            data = tar.read(_PART)
            packed = deflate.compress(data) if data else deflate.flush()
            state.update(packed)
            size_bytes += file.write(packed)
            if not data:
                return f"sha256:{state.hexdigest()}", size_bytes


def _copy(item: _File, target: Target) -> int:
    written = 0
    with closing(item.open()) as content:
        while data := content.read(_PART):
            written += target.write(data)
    return written


def _memory(name: str, data: bytes) -> _File:
    return _File(name, len(data), lambda: BytesIO(data))


def _header(name: str, kind: bytes, mode: int, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)  # the defaults are owner root and time 0
    info.type, info.mode, info.size = kind, mode, size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
