"""The writable layer of an instance as a folder of the host."""

from __future__ import annotations

from vmctl.named import NamedTuple


class Writable(NamedTuple):
    """The writable layer of an instance as a folder of the host: the upper directory of an overlay (overlayfs.rst).

    Owners are as the workload sees them. `made` are paths inside at which the backend has created a folder or an empty
    file as a mount point: they are not changes of the workload, unless it has put something there. `below` are the
    files of layers between the image and the folder, lowest first: those of the snapshot of a clone.
    """

    folder: str  # other processes may be unable to use it: it can begin with /proc/self/fd
    made: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
