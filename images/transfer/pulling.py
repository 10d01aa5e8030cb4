"""Pulls images from registries: reads the manifest first, then fetches only the layers that the store lacks."""

from __future__ import annotations

import hashlib
from functools import partial

from images.layer import layers
from images.layer.progress import Progress, meter
from images.layer.readers import verified
from images.store import platforms, reference, store
from images.store.image import Image, ImageError, Layer
from images.store.reference import Reference
from images.store.staging import Stage, staging
from images.transfer import downloads, oci, registry
from images.transfer.ingest import LayerReader
from images.transfer.registry import Access, DiskFullError
from images.transfer.sources import SourceImage, SourceLayer, is_index
from vmctl.errors import DeadlineError
from vmctl.spec.units import format_size

STALLED_S = 120.0
_DOCUMENTS_BYTES = (
    4 * oci.DOCUMENT_BYTES_MAX
)  # what skopeo writes in addition to layers: manifest, configuration, index
_NESTING_MAX = 3  # depth of nested indexes


def pull(
    name: str,
    access: Access,
    progress: Progress,
    *,
    platform: str = "",
    max_layer_bytes: int | None = None,
) -> Image:
    """Fetch an image, store it under its short name, and return it.

    After an interruption the next pull reuses the complete blobs. Raises NotFoundError if the registry does not have
    the image, ImageError if content is invalid or does not match its digest, VmctlError if the registry cannot be used.
    """
    asked = reference.parse(name)
    registry.check_authfile(access)
    progress(f"asking {asked.registry} for {asked.familiar}")
    want = platforms.parse(platform)
    ref, manifest = _manifest(asked, want, access)
    config_bytes = registry.config(ref, access)
    config = oci.config(config_bytes, manifest.config, len(manifest.layers))
    if platform and config.architecture != want.architecture:
        raise ImageError(f"{asked.familiar} is available only for {config.architecture}")
    with staging() as stage, downloads.download(ref.digest) as folder:
        described = zip(config.rootfs.diff_ids, manifest.layers, strict=True)
        items = [SourceLayer(diff, partial(folder.open, layer), layer.digest, layer.size) for diff, layer in described]
        image = SourceImage((asked.familiar,), config_bytes, config, tuple(items), manifest.annotations or {})
        try:
            _fetch(stage, folder, ref, manifest, image, access, progress)
            image_layers = LayerReader(stage, max_layer_bytes, progress).read(image)
        except (ImageError, DiskFullError, OSError):
            folder.discard()  # so that the next pull does not reuse damaged blobs, and frees a full disk
            raise
        stored = store.add(stage, asked.familiar, image_layers, config_bytes, annotations=image.annotations)
        folder.discard()
    return stored


def _fetch(
    stage: Stage,
    folder: downloads.Download,
    ref: Reference,
    manifest: oci.Manifest,
    image: SourceImage,
    access: Access,
    progress: Progress,
) -> None:
    """Download the layers that the store lacks."""
    stored = _stored_layers(stage, image)
    missing = {layer.digest: layer for layer, known in zip(manifest.layers, stored, strict=True) if not known}
    for layer in missing.values():
        if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
            raise ImageError(
                f"{ref.familiar} has a layer that is kept elsewhere, and is not fetched from there: {layer.media_type}"
            )
    if missing:
        folder.add_placeholders([layer for layer in manifest.layers if layer.digest not in missing])
        total_bytes = sum(layer.size for layer in missing.values())
        tick = registry.watch_transfer(
            meter(progress, f"downloading {ref.repository}", total_bytes),
            lambda _: (_arrived_bytes(folder, total_bytes, ref),),
            STALLED_S,
            DeadlineError(f"{ref.registry} has sent nothing for {STALLED_S:g} s", hint=registry.RETRY),
        )
        registry.download(ref, folder.folder, access, tick)


def _arrived_bytes(folder: downloads.Download, total_bytes: int, ref: Reference) -> int:
    """Return how many bytes of the layers have arrived. Raises ImageError if there are more than announced."""
    arrived = folder.downloaded_bytes()
    if arrived > total_bytes + _DOCUMENTS_BYTES:
        raise ImageError(
            f"{ref.registry} sends more than the layers of {ref.familiar} have by its manifest: "
            f"{format_size(total_bytes)}",
            hint="push the image again",
        )
    return min(arrived, total_bytes)


def _manifest(ref: Reference, want: platforms.Platform, access: Access) -> tuple[Reference, oci.Manifest]:
    """Return the manifest for a platform, and the image's name with the digest of this manifest."""
    for _ in range(_NESTING_MAX):
        data = registry.manifest(ref, access)
        if ref.digest:
            verified(data, ref.digest, f"the manifest from {ref.registry}")
        digest = ref.digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
        what = f"the manifest of {ref.familiar} at {ref.registry}"
        if not is_index(oci.Descriptor(digest, len(data)), data):
            return ref.at(digest), oci.manifest(data, what)
        ref = ref.at(oci.choose(oci.parse(oci.Index, data, what), want, ref.familiar).digest)
    raise ImageError(f"{ref.familiar} nests indexes too deeply")


def _stored_layers(stage: Stage, image: SourceImage) -> list[Layer | None]:
    """Return each layer that the store has, None for the others.

    A layer above a missing layer counts as stored only if its file does not depend on the layers below it.
    """
    found: list[Layer | None] = []
    for item in image.layers:
        below = [layer for layer in found if layer is not None]
        found.append(layers.known(stage, item.diff_id, below if len(below) == len(found) else ()))
    return found
