"""OCI's and docker's documents, parsed at the border: descriptors, indexes, manifests, configurations.

Specification: image-spec's descriptor.md, image-index.md, manifest.md, config.md; docker's are
docs/spec/manifest-v2-2.md of github.com/distribution/distribution, and differ only in their media types.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from images.layer.readers import verified
from images.store.image import ImageError, architecture

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


class Platform(msgspec.Struct):
    """What a manifest of an index is for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        """Return it as `--platform` takes it: `linux/arm/v7`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct):
    """A document or blob, by its digest."""

    digest: Digest
    size: Size
    media_type: str = msgspec.field(name="mediaType", default="")
    annotations: dict[str, str] | None = None
    platform: Platform | None = None


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
    """The layers' tars."""

    diff_ids: list[DiffId]


class Settings(msgspec.Struct):
    """What to run, as far as we read it: parsed to be sure of the types, the bytes are kept."""

    entrypoint: _Strings = msgspec.field(name="Entrypoint", default=None)
    cmd: _Strings = msgspec.field(name="Cmd", default=None)
    env: _Strings = msgspec.field(name="Env", default=None)
    workdir: str | None = msgspec.field(name="WorkingDir", default=None)
    user: str | None = msgspec.field(name="User", default=None)
    stop_signal: str | None = msgspec.field(name="StopSignal", default=None)
    ports: dict[str, Any] | None = msgspec.field(name="ExposedPorts", default=None)
    volumes: dict[str, Any] | None = msgspec.field(name="Volumes", default=None)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class History(msgspec.Struct):
    """How a layer came to be."""

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


class Wanted(NamedTuple):
    """The platform to choose from an index."""

    architecture: str
    os: str = "linux"
    variant: str = ""


_Document = TypeVar("_Document")


def parse(kind: type[_Document], data: bytes, what: str) -> _Document:
    """Return a document of that kind. Raises ImageError, with the path of the key that is wrong."""
    if len(data) > DOCUMENT_BYTES_MAX:
        raise ImageError(f"{what} has {len(data)} bytes; the limit is {DOCUMENT_BYTES_MAX}")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ImageError(f"{what} cannot be used: {reason}") from None


def manifest(data: bytes, what: str) -> Manifest:
    """Return the manifest of a container image. Raises ImageError, also for what is another kind of thing."""
    if parse(_Version, data, what).schema != 2:
        raise ImageError(f"{what} is in docker's first form, of before 2016", hint="push it again with a newer tool")
    parsed = parse(Manifest, data, what)
    if parsed.config.media_type and parsed.config.media_type not in CONFIGS:
        raise ImageError(f"{what} is no container image but holds {parsed.config.media_type}")
    for layer in parsed.layers:
        if layer.media_type and not _LAYER.fullmatch(layer.media_type):
            raise ImageError(f"{what} has a layer in a form that is not known here: {layer.media_type}")
    return parsed


def config(data: bytes, descriptor: Descriptor, layer_count: int) -> Config:
    """Return a configuration, whose digest is verified and which has a diff id for every layer. Raises ImageError."""
    parsed = unnamed_config(data, f"the configuration {descriptor.digest}")
    verified(data, descriptor.digest, "the configuration")
    if len(parsed.rootfs.diff_ids) != layer_count:
        raise ImageError(
            f"the configuration {descriptor.digest} names {len(parsed.rootfs.diff_ids)} layers,"
            f" its manifest has {layer_count}"
        )
    return parsed


def unnamed_config(data: bytes, what: str) -> Config:
    """Return a configuration that nothing names by its digest. Raises ImageError."""
    parsed = parse(Config, data, what)
    if parsed.os != "linux":
        raise ImageError(f"the image is for {parsed.os or 'an operating system without a name'}, not for Linux")
    return parsed


def wanted(text: str) -> Wanted:
    """Return the platform that `amd64`, `linux/arm64` or `linux/arm/v7` names; "" is this host's. Raises ImageError."""
    parts = text.split("/") if text else [architecture()]
    if len(parts) == 1:
        return Wanted(parts[0])
    if len(parts) > 3 or not all(parts):
        raise ImageError(f"{text!r} is no platform", hint="such as linux/amd64 or linux/arm/v7")
    return Wanted(parts[1], parts[0], parts[2] if len(parts) == 3 else "")


def choose(index: Index, want: Wanted, what: str) -> Descriptor:
    """Return the manifest or inner index for a platform. Raises ImageError, naming those there are."""
    usable = [item for item in index.manifests if not _is_attestation(item)]
    fitting = [item for item in usable if item.platform is None or _fits(item.platform, want)]
    exact = [item for item in fitting if item.platform is not None]
    if not fitting:
        there = ", ".join(sorted({str(item.platform) for item in usable})) or "no image"
        name = "/".join(part for part in want[1::-1] + want[2:] if part)
        raise ImageError(f"{what} has nothing for {name}; it has {there}", hint="`--platform` chooses another one")
    return (exact or fitting)[0]


def _fits(platform: Platform, want: Wanted) -> bool:
    same = (platform.architecture, platform.os) == (want.architecture, want.os)
    return same and (not want.variant or platform.variant == want.variant)


def _is_attestation(item: Descriptor) -> bool:
    """Return whether it only says how another one was built, as docker's builder adds them."""
    return item.platform is not None and item.platform.os == item.platform.architecture == "unknown"
