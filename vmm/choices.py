"""The options of mode `vm`: the accelerator, and the libvirt that starts the guests."""

from __future__ import annotations

import os

from vmctl.backend import Option
from vmctl.named import NamedTuple

OPTIONS: tuple[Option, ...] = (
    Option("accel", "vm: accelerator; tcg is emulation (default: auto)", choices=("auto", "kvm", "tcg")),
    Option("connect", "vm: use a running libvirtd, not the embedded driver", metavar="URI"),
)


class Choices(NamedTuple):
    """The options of one `VmBackend`, each with its default."""

    accel: str = "auto"
    connect: str = ""

    @property
    def daemon_uri(self) -> str:
        """The URI of the libvirt daemon, from --connect or LIBVIRT_DEFAULT_URI; empty for the embedded driver."""
        return self.connect or os.environ.get("LIBVIRT_DEFAULT_URI") or ""
