"""Two SSH key pairs per instance, made before it boots: the client's, to log in, and the guest's host key."""

from __future__ import annotations

import base64
import os
from typing import NamedTuple


class KeyPair(NamedTuple):
    """An ed25519 key pair."""

    private: str  # in OpenSSH's format, with the PEM armour
    public: str  # a line as in authorized_keys


def load_or_make(path: str) -> KeyPair:
    """Return the key pair of the private key file `path`; create the file if missing, readable only to its owner."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    if not os.path.exists(path):
        _write_private(path, _new_private())
    with open(path, "rb") as file:
        private = file.read()
    public = load_ssh_private_key(private, password=None).public_key()
    return KeyPair(private.decode(), public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def blob(public: str) -> bytes:
    """Return the public key of a line as bytes of the SSH protocol (RFC 8709)."""
    return base64.b64decode(public.split()[1])


def _new_private() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _write_private(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
