"""The layers of the snapshot that a container is a clone of: what its start needs, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

from images.store import store
from images.store.image import OVERLAY_LAYERS_MAX, Image, Layer
from vmctl.backend import Problem
from vmctl.errors import NotFoundError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError
from vmctl.snapshots import record

if TYPE_CHECKING:
    from typing import Any

    from vmctl.snapshots.record import Snapshot

LAYERS = "layers"  # key of a snapshot's facts: keys of its layers, lowest first
_HEX_DIGITS = frozenset("0123456789abcdef")


def prepared(inst: Instance, image: Image) -> Image:
    """Return the image of an instance with the layers of its snapshot, of which it takes a lease."""
    origin: dict[str, Any] | None = inst.state.snapshot
    if origin is None:
        return image
    return above(image, record.lease(str(origin.get("name")), str(origin.get("id")), inst))


def of(inst: Instance) -> tuple[Layer, ...]:
    """Return the layers of the snapshot that an instance is a clone of, lowest first; none if it is not one."""
    if inst.state.snapshot is None:
        return ()
    return tuple(layers(record.find(str(inst.state.snapshot.get("name")))))


def above(image: Image, snapshot: Snapshot) -> Image:
    """Return an image with the layers of a snapshot on top."""
    return image._replace(layers=(*image.layers, *layers(snapshot)))


def layers(snapshot: Snapshot) -> Iterator[Layer]:
    """Yield the layers of a snapshot, lowest first, without the sizes of their tars. Raises UnreadableError."""
    keys = snapshot.facts.get(LAYERS)
    if not isinstance(keys, list) or not keys or not all(map(is_key, keys)):
        raise _damaged(snapshot, "its record names no layers")
    for key in keys:
        path = os.path.join(snapshot.folder, f"{key}.erofs")
        if os.path.islink(path) or not os.path.isfile(path):
            raise _damaged(snapshot, f"{key}.erofs is missing")
        yield Layer(f"sha256:{key}", path, 0)


def is_key(value: object) -> bool:
    """Return whether a value from a record is the key of a layer: it becomes part of paths."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX_DIGITS


def _damaged(snapshot: Snapshot, why: str) -> UnreadableError:
    return UnreadableError(
        f"the snapshot {snapshot.name} is damaged: {why}", hint=f"`vmctl snapshot rm -f {snapshot.name}` removes it"
    )


def problems(snapshot: Snapshot) -> list[Problem]:
    """See HasSnapshots.clone_problems."""
    try:
        image = above(store.find(snapshot.image_digest), snapshot)
    except NotFoundError:
        return [Problem(f"its image {snapshot.image_digest[:19]} is gone", "take the snapshot again")]
    except VmctlError as error:
        return [Problem(str(error), error.hint)]
    if len(image.stack) > OVERLAY_LAYERS_MAX:
        return [Problem(f"it has {len(image.stack)} layers", "`vmctl commit` an instance, and begin with the image")]
    return []
