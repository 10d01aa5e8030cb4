"""Snapshots of containers: the writable layer becomes a layer like those of an image, which all clones share.

It is kept as an EROFS file in the folder of the snapshot, with owners as inside, so each clone can have other ids; a
clone mounts it above the layers of the image, once on the host for all of them, and nothing is copied. For an ordinary
user it is unpacked once, like layers of images. A snapshot of a clone has the layers of the clone's snapshot too, as
hard links, so neither depends on the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from containers import kept, writable
from containers.footprint import footprint
from images.layer import changes, layers, mounts, tarindex
from images.store import store
from images.store.image import Layer
from images.store.staging import Stage
from vmctl import leases
from vmctl.errors import StateError
from vmctl.instances.instance import Instance
from vmctl.linux import usernamespace
from vmctl.named import TYPE_CHECKING
from vmctl.snapshots import record
from vmctl.snapshots.protocol import Taken

if TYPE_CHECKING:
    from vmctl.snapshots.record import Snapshot

_FILES = (".erofs", tarindex.SUFFIX)


def take(inst: Instance, holder: leases.User, *, running: bool) -> Taken:
    """See HasSnapshots."""
    image, below = store.lease(inst.image, holder), kept.of(inst)
    for layer in below:
        _link(layer, holder.directory)
    memory_bytes = footprint(inst).pss_bytes if running else None
    with writable.writable(inst, pause=running) as lent:
        begun_s = time.monotonic()
        try:
            skip = changes.own((*image.layers, *below), lent, folders=True)
            layer = layers.from_folder(Stage(holder.directory, -1), lent.folder, overlay=True, skip=skip)
        except OSError as error:
            if not str(error.filename).startswith(lent.folder):
                raise
            raise StateError(
                f"{str(error.filename).removeprefix(lent.folder)} of {inst.name} changed while it was read: "
                f"{error.strerror}"
            ) from None
        pause_s = time.monotonic() - begun_s if running else 0.0
    if not usernamespace.is_host_root():  # now, and not in the time of the first clone
        for one in (*below, layer):
            mounts.mount_layer(one, holder)
    return Taken(
        {kept.LAYERS: list(dict.fromkeys([*(one.key for one in below), layer.key]))},
        pause_s=pause_s,
        left_out=tuple(_left_out(inst)),
        clone_memory_bytes=memory_bytes or 0,
    )


def _link(layer: Layer, folder: str) -> None:
    for suffix in _FILES:
        source = layer.path.removesuffix(".erofs") + suffix
        os.link(source, os.path.join(folder, os.path.basename(source)))


def _left_out(inst: Instance) -> Iterator[str]:
    yield "processes and their memory: a clone runs the command of the workload again"
    for volume in inst.work.volumes:
        if not volume.source:
            yield f"the volume at {volume.target}: each clone has a new one"
        else:
            what = "is read by" if volume.read_only else "is shared, for reading and writing, by"
            yield f"{volume.source} at {volume.target}: it {what} all clones and {inst.name}"
    for place in inst.work.tmpfs:
        yield f"the files in memory at {place.target}"


def drop(snapshot: Snapshot) -> None:
    """See HasSnapshots: remove the unpacked layers of an ordinary user, unless others use them."""
    if usernamespace.is_host_root():
        return
    holder = record.Holder(snapshot.name, snapshot.id)
    keys: Sequence[object] = snapshot.facts.get(kept.LAYERS) or ()
    for key in filter(kept.is_key, keys):
        with suppress(OSError):
            mounts.release_layer(str(key), holder)
            mounts.remove_unpacked(mounts.mount_point(str(key)))
