"""Images made for a test: `tiny` with a layer of the test's own on top, in the store of this VMCTL_ROOT."""

import os
import shutil

from images import erofs, store
from images.image import ImageConfig


def add(name, tiny, tree, **config):
    """Add an image: the layers of the image `tiny`, which may be in another store, below the content of `tree`."""
    os.makedirs(store.path("layers"), exist_ok=True)
    layers = [layer._replace(path=store.layer_path(layer.digest)) for layer in tiny.layers]
    for original, layer in zip(tiny.layers, layers, strict=True):
        if not os.path.exists(layer.path):
            shutil.copyfile(original.path, layer.path)
    settings = ImageConfig(**{"cmd": ("/bin/sh",), **config})
    store.add(name, [*layers, erofs.build_layer(str(tree))], settings, created="2026-01-01T00:00:00Z")
