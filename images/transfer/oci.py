"""Parses and checks OCI's and docker's documents: descriptors, indexes, manifests, configurations.

Specification: image-spec's descriptor.md, image-index.md, manifest.md, config.md. Docker's documents are specified in
docs/spec/manifest-v2-2.md of github.com/distribution/distribution and differ only in their media types.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, TypeVar

import msgspec

from images.layer.readers import verified
from images.store.image import ImageError
from images.store.platforms import Platform

DOCUMENT_BYTES_MAX = 4 << 20  # docker's registry refuses larger manifests
REF_NAME, CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"

INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
CONFIGS = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(diff|foreign\.diff)\.tar(\.gzip|\.zstd)?)"
)

# strict, since digests become file names
Digest = Annotated[str, msgspec.Meta(pattern=r"^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
DiffId = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
_Strings = list[str] | None


class Described(msgspec.Struct):
    """The platform of a manifest in an index."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return str(Platform(self.architecture, self.os, self.variant))


class Descriptor(msgspec.Struct):
    """A reference to a document or blob by its digest."""

    digest: Digest
    size: Size
    media_type: str = msgspec.field(name="mediaType", default="")
    annotations: dict[str, str] | None = None
    platform: Described | None = None


class Index(msgspec.Struct):
    """A list of manifests."""

    manifests: list[Descriptor]


class Manifest(msgspec.Struct):
    """One image: a configuration and layers, lowest first."""

    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


class _Version(msgspec.Struct):
    schema: int = msgspec.field(name="schemaVersion", default=2)


class RootFs(msgspec.Struct):
    """The digests of the layers' tars."""

    diff_ids: list[DiffId]


class Settings(msgspec.Struct):
    """The run configuration, as far as vmctl reads it: parsed to check the types; the original bytes are stored."""

    entrypoint: _Strings = msgspec.field(name="Entrypoint", default=None)
    cmd: _Strings = msgspec.field(name="Cmd", default=None)
    env: _Strings = msgspec.field(name="Env", default=None)
    workdir: str | None = msgspec.field(name="WorkingDir", default=None)
    user: str | None = msgspec.field(name="User", default=None)
    stop_signal: str | None = msgspec.field(name="StopSignal", default=None)
    stop_timeout_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] | None = msgspec.field(
        name="StopTimeout", default=None
    )
    on_build: _Strings = msgspec.field(name="OnBuild", default=None)
    shell: _Strings = msgspec.field(name="Shell", default=None)
    ports: dict[str, Any] | None = msgspec.field(name="ExposedPorts", default=None)
    volumes: dict[str, Any] | None = msgspec.field(name="Volumes", default=None)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class History(msgspec.Struct):
    """How a layer was created."""

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    author: str | None = None
    empty_layer: bool = False


class Config(msgspec.Struct):
    """An image configuration."""

    architecture: str
    os: str
    rootfs: RootFs
    config: Settings | None = None
    created: str | None = None
    history: list[History] | None = None
    variant: str = ""


_Document = TypeVar("_Document")


def parse(kind: type[_Document], data: bytes, what: str) -> _Document:
    """Return a parsed document. Raises ImageError naming the path of the key that is wrong."""
    if len(data) > DOCUMENT_BYTES_MAX:
        raise ImageError(f"{what} has {len(data)} bytes; the limit is {DOCUMENT_BYTES_MAX}")
    try:
        json.loads(data.decode())  # also what msgspec skips: the stored bytes are read as a whole later
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ImageError(f"{what} is invalid: {reason}") from None


def manifest(data: bytes, what: str) -> Manifest:
    """Return the manifest of a container image. Raises ImageError, also for a manifest of another kind of artifact."""
    if parse(_Version, data, what).schema != 2:
        hint = "push the image again with a newer tool"
        raise ImageError(f"{what} has docker's manifest schema 1, which is not supported", hint=hint)
    parsed = parse(Manifest, data, what)
    if parsed.config.media_type and parsed.config.media_type not in CONFIGS:
        raise ImageError(f"{what} is not for a container image but for {parsed.config.media_type}")
    for layer in parsed.layers:
        if layer.media_type and not _LAYER.fullmatch(layer.media_type):
            raise ImageError(f"{what} has a layer of an unknown media type: {layer.media_type}")
    return parsed


def config(data: bytes, descriptor: Descriptor, layer_count: int) -> Config:
    """Return a configuration; verifies its digest and that it has a diff id for every layer. Raises ImageError."""
    parsed = parse_config(data, f"the configuration {descriptor.digest}")
    verified(data, descriptor.digest, "the configuration")
    if len(parsed.rootfs.diff_ids) != layer_count:
        raise ImageError(
            f"the configuration {descriptor.digest} lists {len(parsed.rootfs.diff_ids)} layers,"
            f" its manifest has {layer_count}"
        )
    return parsed


def parse_config(data: bytes, what: str) -> Config:
    """Return a configuration without verifying its digest. Raises ImageError."""
    parsed = parse(Config, data, what)
    if parsed.os != "linux":
        raise ImageError(f"the image is for {parsed.os or 'an unnamed operating system'}, not for Linux")
    return parsed


def blob_name(digest: str) -> str:
    """Return the name of a blob in an OCI layout."""
    return "blobs/" + digest.replace(":", "/")


def choose(index: Index, want: Platform, what: str) -> Descriptor:
    """Return the manifest or nested index for a platform. Raises ImageError listing the available platforms."""
    usable = [item for item in index.manifests if not _is_attestation(item)]
    fitting = [item for item in usable if item.platform is None or _fits(item.platform, want)]
    exact = [item for item in fitting if item.platform is not None]
    if not fitting:
        available = ", ".join(sorted({str(item.platform) for item in usable})) or "none"
        raise ImageError(
            f"{what} has no image for {want}; available: {available}", hint="choose a platform with --platform"
        )
    return (exact or fitting)[0]


def _fits(platform: Described, want: Platform) -> bool:
    same = (platform.architecture, platform.os) == (want.architecture, want.os)
    return same and (not want.variant or platform.variant == want.variant)


def _is_attestation(item: Descriptor) -> bool:
    """Return whether a manifest is an attestation, which docker's builder adds to describe another manifest."""
    return item.platform is not None and item.platform.os == item.platform.architecture == "unknown"
