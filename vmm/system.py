"""The seed's user-data for a guest that boots a system: cloud-init applies it, systemd runs the workload.

A MIME multi-part message (https://cloudinit.readthedocs.io/en/latest/explanation/format.html), in this order:
- a boothook, which runs early in each boot: it writes our scripts and units to /run, where they do not persist, and
  starts them; see vmm/guest/system;
- the user's user-data (`vm.cloud_init`), unchanged;
- the guest's host key, which replaces that of the user's user-data;
- the key that may log in and the files to write, appended to the user's lists.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from email.mime.multipart import MIMEMultipart
from typing import NamedTuple

from vmm import seed
from vmm.seed import Identity, SeedFile
from vmm.userdata import Extra, text_part

UNITS = "/run/systemd/system"
APPEND = "list(append)+dict(no_replace,recurse_list)+str()"  # cloud-init's "Merging user-data sections"

_GUEST = os.path.join(os.path.dirname(__file__), "guest")


class Command(NamedTuple):
    """The workload, if it is a command and not the system itself."""

    words: str  # the arguments of `launch`
    pids: int | None = None  # limit for the number of tasks


def user_data(identity: Identity, files: Sequence[SeedFile], command: Command | None, extra: Extra | None) -> str:
    """Return the user-data."""
    keys = text_part("vmctl-keys", "cloud-config", f"#cloud-config\n{seed.host_keys(identity)}")
    own = _own_config(identity, files, default_user=extra is None or not extra.users)
    own_part = text_part("vmctl", "cloud-config", own)
    own_part["X-Merge-Type"] = APPEND
    parts = [text_part("vmctl-boot", "cloud-boothook", _boothook(command)), *([extra.part] if extra else [])]
    parts += [keys, own_part]
    boundary = _unused("vmctl", "".join(part.as_string() for part in parts))
    return MIMEMultipart(boundary=boundary, _subparts=parts).as_string()


def _boothook(command: Command | None) -> str:
    files = [
        SeedFile(seed.LAUNCH, _source("launch"), 0o755),
        SeedFile(f"{seed.HERE}/agent", _source("system/agent"), 0o755),
        *(SeedFile(f"{UNITS}/{unit}", _source(f"system/{unit}")) for unit in ("vmctl.service", "vmctl-ready.service")),
    ]
    if command:
        files += [seed.workload_script(command.words), SeedFile(f"{UNITS}/vmctl-workload.service", _unit(command))]
    return "#cloud-boothook\n#!/bin/sh\n" + "".join(map(_here_document, files)) + _source("system/start").decode()


def _unit(command: Command) -> bytes:
    limit = "infinity" if command.pids is None else str(command.pids)
    return _source("system/vmctl-workload.service") + f"TasksMax={limit}\n".encode()


def _here_document(file: SeedFile) -> str:
    """Return the shell commands that write a file."""
    text = file.content.decode()
    end = _unused("END", text)
    folder = os.path.dirname(file.path)
    return f"mkdir -p {folder}\ncat >{file.path} <<'{end}'\n{text}{end}\nchmod {file.mode:o} {file.path}\n"


def _own_config(identity: Identity, files: Sequence[SeedFile], *, default_user: bool) -> str:
    """Return our cloud-config; with `default_user` it also creates the image's default user."""
    users = ("- default\n" if default_user else "") + seed.root_user(identity)
    quiet = "no_ssh_fingerprints: true\nssh:\n  emit_keys_to_console: false\n"
    return f"#cloud-config\nusers:\n{users}{quiet}" + (seed.write_files(files) if files else "")


def _unused(word: str, text: str) -> str:
    """Return `word`, with `_` appended until it does not occur in the text."""
    while word in text:
        word += "_"
    return word


def _source(name: str) -> bytes:
    with open(os.path.join(_GUEST, name), "rb") as file:
        return file.read()
