"""The part of a guest's recorder that hands secrets to the guest's init, which asks for them at each boot by a mark.

They go through the FIFO of the control port: a pipe is memory of the kernel, so they are on no disk of the host.
"""

from __future__ import annotations

import os
import select

ASKED = b"secrets"  # the mark


class Sender:
    """Sends a text to the FIFO each time it is asked for; the FIFO may be full, and the guest may not read."""

    def __init__(self, poller: select.poll, source: int, fifo: str) -> None:
        """`source` is a descriptor with the text."""
        self._poller, self._source, self._fifo = poller, source, fifo
        self.fd = -1  # of the FIFO, as long as there is something to send
        self._seen, self._waiting = b"", b""

    def look(self, marks: bytes) -> None:
        """Begin to send if the guest asks for the text; `marks` are the next bytes of its marks."""
        *lines, last = (self._seen + marks).split(b"\n")
        self._seen = last[:64]  # a longer one is none of init's
        if ASKED in lines and self.fd < 0:
            try:
                self.fd = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:  # QEMU has just ended
                return
            text = os.pread(self._source, os.fstat(self._source).st_size, 0)
            self._waiting = b"secrets %d\n" % len(text) + text
            self._poller.register(self.fd, select.POLLOUT)

    def send(self) -> None:
        """Send what fits into the FIFO now."""
        try:
            self._waiting = self._waiting[os.write(self.fd, self._waiting) :]
        except BlockingIOError:
            return
        except OSError:
            self._waiting = b""
        if not self._waiting:
            self._poller.unregister(self.fd)
            os.close(self.fd)
            self.fd = -1
