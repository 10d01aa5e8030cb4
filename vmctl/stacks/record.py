"""What a stack has made on this host: one record per stack, which is also its lock.

`<state root>/stacks/NAME/stack.json` is written before anything is made, so that `down` finds networks and volumes even
if `up` was killed. Instances are found by their label.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from vmctl import paths, records
from vmctl.instances import instance
from vmctl.instances.folder import LOCK_S, take_lock
from vmctl.light import json
from vmctl.linux.filetree import remove_tree, replacing
from vmctl.net import SERVICE, STACK
from vmctl.spec.rules import is_name

RECORD = "stack.json"


class Record(NamedTuple):
    """What a stack has made; `depends` and `inputs` are by service and by instance."""

    name: str
    files: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    depends: Mapping[str, tuple[str, ...]] = {}
    inputs: Mapping[str, str] = {}
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()


def root() -> str:
    """Return the folder with one folder per stack."""
    return os.path.join(paths.state_root(), "stacks")


def folder(name: str) -> str:
    """Return the folder of a stack."""
    return os.path.join(root(), name)


def names() -> list[str]:
    """Return the names of all stacks that have a record, or an instance."""
    with_record: list[str] = []
    with suppress(FileNotFoundError):
        with_record = [name for name in os.listdir(root()) if is_name(name)]
    labelled = [stack for _, stack, _ in labels()]
    return sorted({*with_record, *labelled})


def labels() -> Iterator[tuple[str, str, str]]:
    """Yield name, stack and service of each instance of a stack; instances that cannot be read are left out."""
    for name in instance.names():
        try:
            work = instance.load(name).work
        except Exception:  # damaged, removed meanwhile: `ps` reports it
            continue
        if STACK in work.labels:
            yield name, work.labels[STACK], work.labels.get(SERVICE, "")


def instances(stack: str) -> dict[str, str]:
    """Return the service of each instance of a stack, by the name of the instance."""
    return {name: service for name, found, service in labels() if found == stack}


def load(name: str) -> Record:
    """Return the record of a stack; an empty one without a file. Raises UnreadableError."""
    what = f"the stack {name}"
    try:
        values = records.checked_format(records.read(os.path.join(folder(name), RECORD), what), what)
    except FileNotFoundError:
        return Record(name)
    depends = values.pop("depends", {})
    inputs = values.pop("inputs", {})
    found = {
        key: tuple(map(str, part)) for key, part in values.items() if key in Record._fields and isinstance(part, list)
    }
    return Record(
        name,
        **found,
        depends=(
            {key: tuple(map(str, part)) for key, part in depends.items() if isinstance(part, list)}
            if isinstance(depends, dict)
            else {}
        ),
        inputs={key: str(part) for key, part in inputs.items()} if isinstance(inputs, dict) else {},
    )


def save(record: Record) -> None:
    """Write the record of a stack whose lock is held. Raises OSError."""
    values = {key: part for key, part in record._asdict().items() if key != "name"}
    with (
        replacing(os.path.join(folder(record.name), RECORD)) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        file.write(json.dumps(records.versioned(values)) + "\n")


def forget(name: str) -> None:
    """Remove the record of a stack whose lock is held."""
    remove_tree(folder(name))


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of a stack; processes that are forked meanwhile hold it too, until they end.

    Raises ConflictError if another command has it for LOCK_S.
    """
    while True:
        os.makedirs(folder(name), mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            fd = os.open(folder(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                take_lock(fd, f"the stack {name}", LOCK_S)
                if os.path.samestat(os.fstat(fd), os.stat(folder(name))):  # else its last holder has removed it
                    yield
                    with suppress(OSError):
                        os.rmdir(folder(name))  # without a record
                    return
            finally:
                os.close(fd)
