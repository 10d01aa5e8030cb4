"""The seed for a guest that boots a system: cloud-init applies it, systemd runs the workload.

User-data: a MIME multi-part message (https://cloudinit.readthedocs.io/en/latest/explanation/format.html) of two parts:
- a boothook, which runs early in each boot: it writes our scripts and units to /run, where they do not persist, and the
  workload's files, and starts the units; see vmm/guest/system;
- the user's user-data (`vm.cloud_init`), unchanged. No part of ours is merged with it, so all in it has the effect that
  it has anywhere, in whichever form it is written.

Vendor-data: a cloud-config with what makes a boot shorter; cloud-init prefers the user's.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from vmm import seed
from vmm.seed import Identity, SeedFile
from vmm.userdata import text_part

UNITS = "/run/systemd/system"
# One host key for the system's sshd: the usual RSA key takes seconds of an emulated CPU.
VENDOR_DATA = """\
#cloud-config
ssh_genkeytypes: [ed25519]
no_ssh_fingerprints: true
ssh: {emit_keys_to_console: false}
"""

_GUEST = os.path.join(os.path.dirname(__file__), "guest")
_UNITS = ("vmctl.service", "vmctl-ready.service", "vmctl-ssh.socket", "vmctl-ssh@.service")


class Command(NamedTuple):
    """The workload, if it is a command and not the system itself."""

    words: str  # the arguments of `launch`; empty if they come with the secrets
    pids: int | None = None  # limit for the number of tasks
    folders: tuple[str, ...] = ()  # created if they are missing


def user_data(identity: Identity, files: Sequence[SeedFile], command: Command | None, extra: str) -> str:
    """Return the user-data; `extra` is the user's part, if any, see userdata.load."""
    parts = [
        text_part("vmctl-boot", "cloud-boothook", _boothook(identity, files, command)),
        *([extra] if extra else []),
    ]
    boundary = "vmctl"
    while boundary in "".join(parts):
        boundary += "_"
    head = f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n'
    return head + "".join(f"\n--{boundary}\n{part}" for part in parts) + f"\n--{boundary}--\n"


def _boothook(identity: Identity, files: Sequence[SeedFile], command: Command | None) -> str:
    written = [
        SeedFile(seed.LAUNCH, _source("launch"), 0o755),
        SeedFile(f"{seed.HERE}/agent", _source("system/agent"), 0o755),
        SeedFile(f"{seed.HERE}/sshd_config", _source("system/sshd_config")),
        SeedFile(f"{seed.HERE}/ssh_host_key", identity.host_private.encode(), 0o600),
        SeedFile(f"{seed.HERE}/authorized_keys", f"{identity.client_public}\n".encode()),
        *(SeedFile(f"{UNITS}/{unit}", _source(f"system/{unit}")) for unit in _UNITS),
        *files,
    ]
    if command:
        written.append(SeedFile(f"{UNITS}/vmctl-workload.service", _unit(command)))
    if command and command.words:
        written.append(seed.workload_script(command.words, command.folders))
    body = [_source("system/write").decode(), *map(_writing, written), _source("system/start").decode()]
    return "#cloud-boothook\n" + "".join(body)


def _unit(command: Command) -> bytes:
    limit = "infinity" if command.pids is None else str(command.pids)
    return _source("system/vmctl-workload.service") + f"TasksMax={limit}\n".encode()


def _writing(file: SeedFile) -> str:
    """Return the shell command that writes a file, as a text that can be read if it is one."""
    path, content = shlex.quote(file.path), file.content
    if not content.isascii() or b"\0" in content or b"\r" in content or content[-1:] != b"\n":
        return f"write {path} {file.mode:o} base64 -d <<END\n{base64.encodebytes(content).decode()}END\n"
    text, end = content.decode(), "END"
    while end in text:
        end += "_"
    return f"write {path} {file.mode:o} cat <<'{end}'\n{text}{end}\n"


def _source(name: str) -> bytes:
    with open(os.path.join(_GUEST, name), "rb") as file:
        return file.read()
