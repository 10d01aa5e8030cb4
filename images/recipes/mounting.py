"""What the mounts of a RUN step are made of: a copy of files, a folder of the cache, a secret in memory.

Files of `type=bind` are copied, from where COPY would take them: so .dockerignore applies, a hostile context or image
has no way out, and the digest of what is seen is part of the step's key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from images.layer import unpacked
from images.recipes import caches, instructions, runmounts
from images.recipes.copystep import Addition
from images.recipes.files import Files
from images.recipes.steps import Copy, RunMount
from images.store.staging import Stage
from vmctl.errors import SpecError
from vmctl.linux.filetree import remove_tree
from vmctl.linux.locks import held_at_once
from vmctl.spec.workload import Bytes, Tmpfs, Volume

_BOUND = "bound"  # the name, in its layer, of what is mounted
_MEMORY, _PREFIX = "/dev/shm", "vmctl-secrets-"

Made = tuple[tuple[Volume, ...], tuple[Tmpfs, ...]]


class Mounting:
    """The mounts of one step: a context manager, since the sources are open meanwhile."""

    def __init__(self, mounts: Sequence[RunMount], workdir: str, secrets: Mapping[str, bytes]) -> None:
        self._mounts = [_placed(mount, workdir) for mount in mounts]
        self._secrets = secrets
        self._bound: dict[str, tuple[Addition, str]] = {}  # target -> the files, and their digest
        self._stack = ExitStack()
        _check(self._mounts, secrets)

    def __enter__(self) -> Mounting:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, origin: Callable[[str, ExitStack], Files], epoch_s: int) -> None:
        """Find the files of `type=bind`; `origin` returns those of a stage, an image or the context."""
        for mount in self._mounts:
            if mount.kind == "bind":
                addition = self._stack.enter_context(Addition((), epoch_s))
                source = re.sub(r"([*?\[\\])", r"\\\1", mount.source)
                addition.copy(Copy((source,), f"/{_BOUND}"), origin(mount.origin, self._stack), "/")
                self._bound[mount.target] = addition, addition.digest()

    def key(self) -> list[object]:
        """Return what the result of the step depends on; not the content of caches and secrets, as Docker has it."""
        return [
            [*mount, self._bound[mount.target][1]] if mount.kind == "bind" else list(mount) for mount in self._mounts
        ]

    def make(self, stage: Stage) -> Made:
        """Return the mounts for a workload, and make their sources, which last as long as this object."""
        volumes, memory, folder = [], [], ""
        for number, mount in enumerate(self._mounts):
            if mount.kind == "tmpfs":
                size = None if mount.size_bytes is None else Bytes(mount.size_bytes)
                memory.append(Tmpfs(mount.target, size))
            elif mount.kind == "secret":
                if mount.id in self._secrets:
                    folder = folder or self._stack.enter_context(_folder_in_memory())
                    volumes.append(Volume(self._secret(mount, f"{folder}/{number}"), mount.target, read_only=True))
            elif mount.kind == "cache":
                source = self._stack.enter_context(caches.lent(mount))
                volumes.append(Volume(source, mount.target, mount.read_only))
            else:
                source = self._copy_of(mount, stage, stage.path(f"bound-{os.urandom(6).hex()}"))
                volumes.append(Volume(source, mount.target, mount.read_only))
        return tuple(volumes), tuple(memory)

    def _copy_of(self, mount: RunMount, stage: Stage, folder: str) -> str:
        addition, digest = self._bound[mount.target]
        unpacked.unpack_into(addition.layer(stage, digest).path, folder)
        return os.path.join(folder, _BOUND)

    def _secret(self, mount: RunMount, path: str) -> str:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(self._secrets[mount.id])
            os.fchown(file.fileno(), mount.uid, mount.gid)
            os.fchmod(file.fileno(), mount.mode)
        return path


def _placed(mount: RunMount, workdir: str) -> RunMount:
    target = instructions.absolute(mount.target, workdir).rstrip("/") or "/"
    runmounts.check_target(target)
    return mount._replace(target=target, id=mount.id or (target if mount.kind == "cache" else ""))


def _check(mounts: Sequence[RunMount], secrets: Mapping[str, bytes]) -> None:
    seen: set[str] = set()
    for mount in mounts:
        if mount.target in seen:
            raise ValueError(f"--mount: {mount.target} is given twice")
        seen.add(mount.target)
        if mount.kind == "secret" and mount.required and mount.id not in secrets:
            raise SpecError(
                f"the secret {mount.id} is required, and was not given", hint=f"--secret id={mount.id},src=FILE"
            )


@contextmanager
def _folder_in_memory() -> Iterator[str]:
    """Lend a folder that is on no disk. Those of killed commands, which hold no lock, are removed."""
    with os.scandir(_MEMORY) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                with suppress(OSError), held_at_once(entry.path):
                    remove_tree(entry.path)
    folder = os.path.join(_MEMORY, _PREFIX + os.urandom(8).hex())
    os.mkdir(folder, 0o700)
    try:
        with held_at_once(folder):
            yield folder
    finally:
        remove_tree(folder)
