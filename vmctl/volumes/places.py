"""Where the volumes of a workload are on this host, and what stands in the way of their use."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vmctl.errors import SpecError
from vmctl.leases import User
from vmctl.spec.workload import Volume, Workload, depth


def located(work: Workload, directory: str) -> tuple[Volume, ...]:
    """Return the volumes in the order of their mounts, each with the absolute path of its source; see `found`."""
    return tuple(sorted(found(work, directory), key=lambda volume: depth(volume.target)))


def found(work: Workload, directory: str) -> list[Volume]:
    """Return the volumes in the order of the workload, each with the absolute path of its source.

    `directory` is that of the instance: it has the volumes without a name.
    """
    return [volume._replace(source=_path(volume, number, directory)) for number, volume in enumerate(work.volumes)]


def ours(work: Workload, directory: str) -> Iterator[tuple[Volume, str]]:
    """Yield each volume that vmctl keeps, with the folder that instances see."""
    for number, volume in enumerate(work.volumes):
        if not volume.is_path:
            yield volume, _path(volume, number, directory)


def _path(volume: Volume, number: int, directory: str) -> str:
    if volume.is_path:
        return os.path.abspath(volume.source)
    from vmctl.volumes import store  # folders of the host do not need it

    return store.data(volume.source) if volume.source else os.path.join(directory, "volumes", str(number), "data")


def take(work: Workload, user: User) -> None:
    """Give an instance leases of its named volumes, and make those without a name; repeatable. Raises OSError."""
    for volume, path in ours(work, user.directory):
        if volume.source:
            from vmctl.volumes import store

            store.take(volume.source, user)
        elif not os.path.isdir(path):
            os.makedirs(path)
            os.chmod(path, 0o755)  # independent of the umask


def names(work: Workload) -> list[str]:
    """Return the names of the volumes of a workload, each once."""
    return list(dict.fromkeys(volume.source for volume, _ in ours(work, "") if volume.source))


def check(work: Workload) -> None:
    """Raise SpecError for the first source that does not exist."""
    for volume in work.volumes:
        if volume.is_path and not os.path.exists(volume.source):
            from shlex import quote

            path = os.path.abspath(volume.source)
            raise SpecError(f"the volume's source {path} does not exist", hint=f"mkdir -p {quote(path)}")
