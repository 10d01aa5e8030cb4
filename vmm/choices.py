"""The options of mode `vm`: the accelerator, and the libvirt that starts the guests."""

from __future__ import annotations

import os

from vmctl.backend import Option
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

    from vmctl.spec.workload import Workload

OPTIONS: tuple[Option, ...] = (
    Option("accel", "vm: accelerator; tcg is emulation (default: auto)", choices=("auto", "kvm", "tcg")),
    Option("warm", "vm: begin with the memory of a guest that has booted before", choices=("off", "auto", "on")),
    Option("connect", "vm: use a running libvirtd, not the embedded driver", metavar="URI"),
)


class Choices(NamedTuple):
    """The options of one `VmBackend`, each with its default."""

    accel: str = "auto"
    connect: str = ""
    warm: str = ""  # empty: as in the workload

    @property
    def daemon_uri(self) -> str:
        """The URI of the libvirt daemon, from --connect or LIBVIRT_DEFAULT_URI; empty for the embedded driver."""
        return self.connect or os.environ.get("LIBVIRT_DEFAULT_URI") or ""

    def of(self, work: Workload) -> Workload:
        """Return a workload with what its caller has chosen in place of a key; a libvirt daemon keeps the monitor."""
        warm: Any = "off" if self.daemon_uri else self.warm
        return work._replace(vm=work.vm._replace(warm=warm)) if warm else work
