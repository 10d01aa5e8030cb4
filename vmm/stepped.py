"""The start of a guest step by step: its processors are stopped before the first instruction (QEMU's option -S)."""

from __future__ import annotations

from vmm import monitor
from vmm.start import GuestStart


class SteppedStart(GuestStart):
    """See vmctl.backend.Start. The step QEMU is traced, and waits, while the guest is stopped."""

    _stopped = True

    def begin(self) -> None:
        """See Start."""
        super().begin()
        monitor.ask(self.inst, "cont")
