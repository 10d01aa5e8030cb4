"""Images from registries: what is there is asked first, and only layers that the store lacks are fetched."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial

from images.layer import layers
from images.layer.progress import Progress, meter
from images.layer.readers import verified
from images.store import reference, store
from images.store.image import Image, ImageError, Layer
from images.store.reference import Reference
from images.store.staging import Stage, staging
from images.transfer import downloads, oci, registry
from images.transfer.ingest import Bringer
from images.transfer.registry import Access, DiskFullError
from images.transfer.sources import Incoming, IncomingLayer, is_index
from vmctl.errors import DeadlineError

STALLED_S = 120.0
_NESTING_MAX = 3  # indexes inside of indexes


def pull(
    name: str,
    access: Access,
    progress: Progress,
    *,
    platform: str = "",
    max_layer_bytes: int | None = None,
) -> Image:
    """Fetch an image, store it under its short name, and return it.

    An interrupted download goes on where it stopped: blobs that are complete are kept. Raises NotFoundError for an
    unknown name, ImageError for what is not what it is said to be, VmctlError for a registry that cannot be used.
    """
    asked = reference.parse(name)
    progress(f"asking {asked.registry} for {asked.familiar}")
    want = oci.wanted(platform)
    ref, manifest = _manifest(asked, want, access)
    config_bytes = registry.config(ref, access)
    config = oci.config(config_bytes, manifest.config, len(manifest.layers))
    if platform and config.architecture != want.architecture:
        raise ImageError(f"{asked.familiar} is for {config.architecture}; there is no other one")
    with staging() as stage, downloads.download(ref.digest) as folder:
        described = zip(config.rootfs.diff_ids, manifest.layers, strict=True)
        items = [
            IncomingLayer(diff, partial(folder.open, layer), layer.digest, layer.size) for diff, layer in described
        ]
        image = Incoming((asked.familiar,), config_bytes, config, tuple(items), manifest.annotations or {})
        try:
            _fetch(stage, folder, ref, manifest, image, access, progress)
            brought = Bringer(stage, max_layer_bytes, progress).layers(image)
        except (ImageError, DiskFullError, OSError):
            folder.discard()  # what is wrong is not to be found again
            raise
        stored = store.add(stage, asked.familiar, brought, config_bytes, annotations=image.annotations)
        folder.discard()
    return stored


def _fetch(
    stage: Stage,
    folder: downloads.Download,
    ref: Reference,
    manifest: oci.Manifest,
    image: Incoming,
    access: Access,
    progress: Progress,
) -> None:
    """Download the layers that the store lacks."""
    held = _held(stage, image)
    missing = {layer.digest: layer for layer, known in zip(manifest.layers, held, strict=True) if not known}
    if missing:
        folder.pretend([layer for layer in manifest.layers if layer.digest not in missing])
        total = sum(layer.size for layer in missing.values())
        registry.download(ref, folder.folder, access, _watch(folder, ref, total, progress))


def _manifest(ref: Reference, want: oci.Wanted, access: Access) -> tuple[Reference, oci.Manifest]:
    """Return the manifest for a platform, and the name by which it stays the same one."""
    for _ in range(_NESTING_MAX):
        data = registry.manifest(ref, access)
        if ref.digest:
            verified(data, ref.digest, f"what {ref.registry} gives for")
        digest = ref.digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
        what = f"the manifest of {ref.familiar} at {ref.registry}"
        if not is_index(oci.Descriptor(digest, len(data)), data):
            return ref.at(digest), oci.manifest(data, what)
        ref = ref.at(oci.choose(oci.parse(oci.Index, data, what), want, ref.familiar).digest)
    raise ImageError(f"{ref.familiar} is an index in an index in an index")


def _held(stage: Stage, image: Incoming) -> list[Layer | None]:
    """Return for each layer what the store has of it; above a missing one, only what does not depend on it."""
    found: list[Layer | None] = []
    for item in image.layers:
        below = [layer for layer in found if layer is not None]
        found.append(layers.known(stage, item.diff_id, below if len(below) == len(found) else ()))
    return found


def _watch(folder: downloads.Download, ref: Reference, total: int, progress: Progress) -> Callable[[int], None]:
    """Return what shows how far a download is, and ends one that stands still."""
    told = meter(progress, f"downloading {ref.repository}", total)
    last_bytes, last_s = -1, time.monotonic()

    def tick(_: int) -> None:
        nonlocal last_bytes, last_s
        arrived = folder.arrived_bytes()
        if arrived != last_bytes:
            last_bytes, last_s = arrived, time.monotonic()
        elif time.monotonic() - last_s > STALLED_S:
            raise DeadlineError(
                f"{ref.registry} has sent nothing for {STALLED_S:g} s", hint="try again: what has arrived is kept"
            )
        told(min(arrived, total))

    return tick
