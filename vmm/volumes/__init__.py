"""Volumes of guests: each is a virtiofs device of QEMU, whose file server is a process of ours (server.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vmctl.instances.folder import Home
from vmctl.spec.workload import Volume, Workload
from vmctl.volumes import places
from vmm.seed import Share

PROGRAM = "/usr/lib/qemu/virtiofsd"  # the one in C, which QEMU had up to version 7.2


def shares(work: Workload, home: Home) -> Iterator[Share]:
    """Yield the volumes as the guest mounts them; their numbers are those of the workload."""
    for number, volume in enumerate(places.found(work, home.directory)):
        is_file = work.volumes[number].is_path and not os.path.isdir(volume.source)
        yield Share(f"volume{number}", volume.target, volume.read_only, is_file)


def command(fd: int) -> list[str]:
    """Return the command of a file server that listens at a descriptor, in a root that has the volume in /volume.

    `cache=auto`: with `none` a shared mapping is refused (mmap(2), ENODEV), as databases use it. Locks stay in the
    guest: with `flock` or `posix_lock` one that waits would stop the server, which has one thread for all requests.
    """
    options = "source=/volume,sandbox=chroot,cache=auto,xattr,log_level=err"
    return [PROGRAM, f"--fd={fd}", "-f", "--rlimit-nofile=0", "-o", options]


def special(work: Workload) -> Iterator[Volume]:
    """Yield the volumes of which only this kernel knows what they are: sockets, devices and FIFOs."""
    for volume in work.volumes:
        known = os.path.isdir(volume.source) or os.path.isfile(volume.source)
        if volume.is_path and os.path.exists(volume.source) and not known:
            yield volume
