"""Images made for a test: of a folder, or `tiny` with a layer of the test's own on top, in this VMCTL_ROOT's store."""

import fcntl
import os
import shutil

import pytest
from support.commands import ok

from images.layer import layers
from images.store import store
from images.store.image import ImageConfig
from images.store.staging import staging

CREATED = "2026-01-01T00:00:00Z"
CONFIG = ImageConfig(("/bin/sh",), ("-c", "true"), ("PATH=/bin", "A=image"), "/srv", "1000", "SIGQUIT")


def put(name, *trees, config=CONFIG, created=CREATED):
    """Store an image with a layer of each folder, lowest first, and return it."""
    with staging() as stage:
        made = [layers.from_folder(stage, str(tree)) for tree in trees]
        return store.add(stage, name, made, store.config_document(made, config, created))


def add(name, tiny, *trees, **config):
    """Add an image: the layers of the image `tiny`, which may be in another store, below a layer of each folder."""
    settings = ImageConfig(**{"cmd": ("/bin/sh",), **config})
    with staging() as stage:
        made = [held(stage, layer) for layer in tiny.layers]
        made += [layers.from_folder(stage, str(tree)) for tree in trees]
        return store.add(stage, name, made, store.config_document(made, settings, CREATED))


class Shipped:
    """The shipped recipes, each built once by whichever worker needs it first, in a store for other tests to copy."""

    def __init__(self, root):
        self.root = root
        os.makedirs(root, exist_ok=True)

    def image(self, name):
        """Return the image, which is not in the present store."""
        return self._built(name)[0]

    def bring(self, name):
        """Put the image into the present store and return it."""
        image, config = self._built(name)
        with staging() as stage:
            made = [held(stage, layer) for layer in image.layers]
            return store.add(stage, name, made, config)

    def _built(self, name):
        with pytest.MonkeyPatch.context() as patch, open(os.path.join(self.root, f"{name}.lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            patch.setenv("VMCTL_ROOT", self.root)
            if not lock.tell():
                ok("image", "build", "--quiet", name, timeout_s=900)
                lock.write("built")
            image = store.find(name)
            return image, store.raw_config(image)


def held(stage, layer):
    """Copy a layer of any store into a stage and return it there."""
    for file in (layer.path, layers.tarindex.index_path(layer.path)):
        shutil.copyfile(file, stage.path(os.path.basename(file)))
    return layer._replace(path=stage.path(os.path.basename(layer.path)))
