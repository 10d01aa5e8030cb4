"""The writable layer of an instance, lent as a folder of the host."""

from __future__ import annotations

from vmctl.named import NamedTuple


class Writable(NamedTuple):
    """The writable layer of an instance as a folder of the host: the upper directory of an overlay (overlayfs.rst).

    Owners are as the workload sees them. `made` are the paths inside at which the backend itself made a folder or an
    empty file, to mount on: no change of the workload's, unless it put something there.
    """

    folder: str  # only this process can be sure to reach it: it may begin with /proc/self/fd
    made: tuple[str, ...] = ()
