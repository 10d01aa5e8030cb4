"""Which libvirt: our own embedded one, or a daemon that the user names."""

from __future__ import annotations

import os


def daemon_uri() -> str:
    """Return the URI of the libvirt daemon to use; empty for the embedded driver."""
    return os.environ.get("VMCTL_CONNECT") or os.environ.get("LIBVIRT_DEFAULT_URI") or ""
