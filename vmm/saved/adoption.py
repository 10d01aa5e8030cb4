"""The identity of a guest that begins with another one's memory, as its init gets it: see vmm/guest/program/adopt.c."""

from __future__ import annotations

import base64
import os
import posixpath
import time
from collections.abc import Sequence
from socket import inet_ntoa

from images.store.image import provided
from vmctl.instances.instance import Instance
from vmctl.net import Link, hosts, name_servers
from vmm import configure, seed

_ENTROPY_BYTES = 64
_ROOT = "/image"  # of the workload, as init sees it


def identity(inst: Instance, links: Sequence[Link], old_macs: Sequence[str], *, machine_id: bool = True) -> bytes:
    """Return what makes a guest another one, for its init: all but the time; perhaps without a new machine-id."""
    work, keys = inst.work, configure.keys_of(inst)
    hostname, first = work.hostname or inst.name, links[0].address if links else None
    given = provided(work, hostname, first, name_servers(links), hosts(links))
    lines = [f"hostname {hostname}", *([f"machine-id {os.urandom(16).hex()}"] if machine_id else [])]
    lines += [_link(old, link) for old, link in zip(old_macs, links, strict=True)]
    return b"".join(
        (
            "".join(f"{line}\n" for line in lines).encode(),
            *(_file(f"{_ROOT}{seed.HERE}/{posixpath.basename(one.path)}", 0o644, one.content) for one in given),
            *((_file("/run/address", 0o600, f"{first}\n"), *_ssh(keys)) if first else ()),
        )
    )


def unchanged(links: Sequence[Link]) -> bytes:
    """Return the same for a guest that stays the one it was; its sshd listens again, and so is known as ready."""
    return _file("/run/address", 0o600, f"{links[0].address}\n") if links else b""


def addresses(links: Sequence[Link], old_macs: Sequence[str]) -> bytes:
    """Return the same for a guest that reads all the rest from its seed."""
    return "".join(f"link {old} {link.mac}\n" for old, link in zip(old_macs, links, strict=True)).encode()


def fresh() -> bytes:
    """Return random bytes for the guest's kernel, and the time."""
    return f"entropy {os.urandom(_ENTROPY_BYTES).hex()}\nclock {time.time():.6f}\n".encode()


def _link(old_mac: str, link: Link) -> str:
    mask = inet_ntoa((0xFFFFFFFF << 32 - link.prefix & 0xFFFFFFFF).to_bytes(4, "big"))
    return f"link {old_mac} {link.mac} {link.address} {mask} {link.gateway}".rstrip()


def _file(path: str, mode: int, content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return f"file {mode:o} {path} {len(raw)}\n".encode() + raw


def _ssh(keys: seed.Identity) -> tuple[bytes, bytes]:
    """Return the keys of sshd: who may log in, and the host key as vmm/guest/later converts it for dropbear."""
    lines = [line for line in keys.host_private.splitlines() if line and not line.startswith("-")]
    raw = base64.b64decode("".join(lines))
    host_key = raw[106:121] + raw[157:225]
    return _file("/root/.ssh/authorized_keys", 0o600, f"{keys.client_public}\n"), _file(
        "/root/host_key", 0o600, host_key
    )
