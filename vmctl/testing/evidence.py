"""What the report of a failed test has of its instances: output, console, changed files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmctl.console import visible
from vmctl.errors import VmctlError
from vmctl.instances.folder import Home
from vmctl.logs import logfile

if TYPE_CHECKING:
    import vmctl

Section = tuple[str, str]  # title and content, as in a report of pytest

_BYTES, _LINES = 8192, 100  # of each log; of the changed files


def sections(instances: Sequence[vmctl.Instance], *, keep: bool) -> list[Section]:
    """Return the sections about the instances of a failed test; an instance that is gone has none."""
    found: list[Section] = []
    for instance in instances:
        found += _of(instance, keep=keep)
    return found


def _of(instance: vmctl.Instance, *, keep: bool) -> Iterator[Section]:
    home = Home(instance.name, "")
    if not os.path.isdir(home.directory):
        return
    for what, path in (("stdout", home.stdout_log), ("stderr", home.stderr_log), ("console", home.console_log)):
        if os.path.exists(path) and (raw := logfile.last_bytes(path, _BYTES)):
            yield f"vmctl {what} of {instance.name}", visible(raw.decode(errors="replace"))
    yield f"vmctl diff of {instance.name}", _changes(instance)
    if keep:
        yield "vmctl", f"{instance.name} is kept: `vmctl shell {instance.name}`; `vmctl rm -f {instance.name}`"


def _changes(instance: vmctl.Instance) -> str:
    try:
        lines = [f"{kind} {path}" for kind, path in instance.diff()]
    except VmctlError as error:
        return f"not available: {error}"
    more = [f"... and {len(lines) - _LINES} more"] if len(lines) > _LINES else []
    return visible("\n".join([*lines[:_LINES], *more])) or "no file differs"
