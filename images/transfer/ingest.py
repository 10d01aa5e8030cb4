"""Reads the layers of an image into a stage: skips layers that the store has, verifies the others while reading.

Each layer is read once: its compressed bytes are hashed before decompression, its tar while the EROFS file is written.
"""

from __future__ import annotations

from images.layer import compression, layers
from images.layer.compression import limit_bytes
from images.layer.progress import Progress, meter
from images.layer.readers import VerifiedStream
from images.store.image import Layer
from images.store.staging import Stage
from images.transfer.sources import SourceImage, SourceLayer


class LayerReader:
    """Reads layers into one stage; a layer that several images share is read once."""

    def __init__(self, stage: Stage, max_layer_bytes: int | None, progress: Progress) -> None:
        self._stage = stage
        self._max_layer_bytes = max_layer_bytes
        self._progress = progress
        self._done: dict[tuple[str, ...], Layer] = {}

    def read(self, image: SourceImage) -> list[Layer]:
        """Return the layers of an image, lowest first; those that the store lacks are in the stage.

        Raises ImageError if a layer is damaged, too large, or does not match its digest or size.
        """
        found: list[Layer] = []
        for number, item in enumerate(image.layers, 1):
            sentence = f"layer {number} of {len(image.layers)}"
            key = (item.diff_id, *(layer.key for layer in found))
            layer = self._done.get(key) or layers.known(self._stage, item.diff_id, found)
            if layer is None:
                layer = self._read_layer(item, found, sentence)
            self._done[key] = layer
            found.append(layer)
        return found

    def _read_layer(self, item: SourceLayer, below: list[Layer], sentence: str) -> Layer:
        what = f"the layer {item.digest or item.diff_id}"
        file, size_bytes = item.open()
        with file:
            packed = VerifiedStream(
                file,
                what,
                digest="" if item.digest == item.diff_id else item.digest,  # from_tar verifies the diff id
                size_bytes=item.size_bytes,
                progress=meter(self._progress, sentence, size_bytes),
            )
            layer = layers.from_tar(
                self._stage,
                compression.plain(packed, what),
                below=below,
                diff_id=item.diff_id,
                limit_bytes=limit_bytes(size_bytes, self._max_layer_bytes),
            )
            packed.finish()
        return layer
