"""Commit: the writable layer of an instance on top of its image gives a new image, which runs in every mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from images.layer import changes, layers
from images.store import reference, store
from images.store.image import Image, Layer
from images.store.staging import Stage, staging
from vmctl.errors import StateError
from vmctl.spec.units import format_size
from vmctl.writable import Writable

# keys that Docker adds to a configuration for the container of its origin; OCI does not have them
_OF_A_CONTAINER = ("container", "container_config", "docker_version", "id", "parent")

Settings = Mapping[str, Any]  # the part `config` of an OCI image configuration


def commit(
    base: Image,
    lent: AbstractContextManager[Writable],
    name: str,
    *,
    origin: str,
    message: str = "",
    author: str = "",
    change: Callable[[Settings], Settings] = lambda settings: settings,
    progress: Callable[[str], None] = lambda _: None,
) -> Image:
    """Store an image made of the image `base` and a writable layer on top of it, and return the image.

    An image of the same name is replaced. `origin` is the name of the layer's instance. `change` returns the settings
    of the new image; message and author are for its history. Raises SpecError for an invalid name, StateError if `base`
    has no layers, VmctlError; then the store is unchanged.
    """
    name = reference.of_new_image(name)
    require_layers(base, origin)
    settings = change(dict(store.document(base).get("config") or {}))
    with staging() as stage:
        below = layers.held(stage, base)
        below += _layers(stage, lent, base, origin, lambda size: progress(f"{origin}: {format_size(size)}"))
        document = _document(store.document(base), below, settings, _history(origin, message, author))
        return store.add(stage, name, below, document)


def require_layers(image: Image, user: str) -> None:
    """Raise StateError if an image has no layers, because it is a disk."""
    if image.disk:
        raise StateError(
            f"{user} was started from the disk image {image.name}, which has no layers to compare it with",
            hint="`vmctl image import --as-layer` imports the disk's files as a layer",
        )


def _layers(
    stage: Stage, lent: AbstractContextManager[Writable], base: Image, origin: str, progress: Callable[[int], None]
) -> list[Layer]:
    """Return the layer of an instance; if it is a clone, after those of its snapshot."""
    with lent as writable:
        below = [layers.linked(stage, path) for path in writable.below]
        skip = changes.own((*base.layers, *below), writable, folders=True)
        try:
            layer = layers.from_folder(stage, writable.folder, overlay=True, skip=skip, progress=progress)
            return [*below, layer]
        except OSError as error:
            if not str(error.filename).startswith(writable.folder):
                raise
            path = str(error.filename).removeprefix(writable.folder)
            raise StateError(
                f"{path} of {origin} changed while it was read: {error.strerror}",
                hint="try again, without --no-pause",
            ) from None


def _history(origin: str, message: str, author: str) -> dict[str, Any]:
    words = {"created_by": f"vmctl commit {origin}", "comment": message, "author": author}
    return {"created": store.timestamp(time.time()), **{key: text for key, text in words.items() if text}}


def _document(
    base: Mapping[str, Any], stack: Sequence[Layer], settings: Settings, entry: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the new image's OCI configuration: that of the base, plus a layer and a line of history."""
    document = {key: value for key, value in base.items() if key not in _OF_A_CONTAINER}
    history = list(base.get("history") or [])
    described = sum(1 for line in history if not line.get("empty_layer"))
    history += [{"created": base.get("created", "")}] * (len(stack) - 1 - described)  # a line for each other layer
    document |= {
        "created": entry["created"],
        "config": dict(settings),
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in stack]},
        "history": [*history, dict(entry)],
    }
    return document
