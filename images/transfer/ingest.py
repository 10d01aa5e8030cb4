"""The layers of an image on its way in: those the store has stay unread, others are verified as they stream.

Each is read once: packed bytes are hashed on the way to the decoder, the decoder's output on the way to the EROFS file.
"""

from __future__ import annotations

from collections.abc import Callable

from images.layer import compression, layers
from images.layer.progress import Progress, meter
from images.layer.readers import VerifiedStream
from images.store.image import Layer
from images.store.staging import Stage
from images.transfer.sources import Incoming, IncomingLayer

# A layer may unpack to this, or to so many times its packed size where that is more: gzip makes a tenth of text and a
# thousandth of zeros.
LAYER_BYTES, LAYER_FACTOR = 4 << 30, 100


def limit_bytes(packed_bytes: int, stated_bytes: int | None) -> int:
    """Return to how much a layer of a packed size may unpack, unless the user has stated it."""
    return max(LAYER_BYTES, LAYER_FACTOR * packed_bytes) if stated_bytes is None else stated_bytes


class Bringer:
    """Brings layers into one stage; a layer that several images have comes once."""

    def __init__(self, stage: Stage, max_layer_bytes: int | None, progress: Progress) -> None:
        self._stage = stage
        self._max_layer_bytes = max_layer_bytes
        self._progress = progress
        self._brought: dict[tuple[str, ...], Layer] = {}

    def layers(self, image: Incoming) -> list[Layer]:
        """Return the layers of an image, lowest first.

        Raises ImageError for one whose digest or size is not the stated one, that is damaged, or too large.
        """
        found: list[Layer] = []
        for number, item in enumerate(image.layers, 1):
            sentence = f"layer {number} of {len(image.layers)}"
            key = (item.diff_id, *(layer.key for layer in found))
            layer = self._brought.get(key) or layers.known(self._stage, item.diff_id, found)
            if layer is None:
                layer = self._read(item, found, sentence)
            self._brought[key] = layer
            found.append(layer)
        return found

    def _read(self, item: IncomingLayer, below: list[Layer], sentence: str) -> Layer:
        what = f"the layer {item.digest or item.diff_id}"
        file, size_bytes = item.open()
        with file:
            packed = VerifiedStream(
                file,
                what,
                digest="" if item.digest == item.diff_id else item.digest,  # from_tar looks at that one
                size_bytes=item.size_bytes,
                progress=self._meter(sentence, size_bytes),
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

    def _meter(self, sentence: str, size_bytes: int) -> Callable[[int], None]:
        return meter(self._progress, sentence, size_bytes)
