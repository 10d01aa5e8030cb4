"""The part of a guest's recorder that connects callers with the workload's terminal, or with its open input.

Input goes through a port of QEMU, whose socket takes one connection. The size of the terminal goes through the control
FIFO to the guest's init.
"""

from __future__ import annotations

import _socket  # `socket` would import `enum` and `selectors`, 1 MB
import os

from vmctl.attach.hub import Hub

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Sequence


class Shown:
    """The streams of a workload in a guest, and who is connected with them."""

    def __init__(
        self,
        poller: select.poll,
        listener: int,
        outputs: Sequence[int],
        stdin: str,
        control: str,
        *,
        terminal: bool,
        hang_up: Callable[[], object] | None,
    ) -> None:
        """`outputs` are the FIFOs of stdout and stderr, `stdin` is the socket of QEMU's port.

        With `hang_up` the first caller is the owner, and it is called when that has gone without detaching.
        """
        self._outputs, self._stdin, self._control = outputs, stdin, control
        self.hub = Hub(
            poller,
            listener,
            -1,
            outputs,
            resize=self._resize if terminal else None,
            hang_up=hang_up,
            owned=hang_up is not None,
        )

    def show(self, fd: int, data: bytes) -> None:
        """Pass what was read from a FIFO on to the callers, if it is output."""
        if fd in self._outputs:
            self.hub.show(fd, data)

    def handle(self, events: dict[int, int]) -> None:
        """Handle what poll(2) has reported."""
        if not self.hub.takes_input():
            self._connect()  # before a caller is greeted: the guest takes a port without a connection for closed
        self.hub.handle(events)

    def _connect(self) -> None:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.connect(self._stdin)
        except OSError:  # QEMU does not run yet
            connection.close()
            return
        self.hub.take_input(connection.detach())

    def _resize(self, columns: int, lines: int, redraw: bool) -> None:
        for more in (1, 0) if redraw else (0,):
            self._request(b"resize %d %d\n" % (columns, lines + more))

    def _request(self, line: bytes) -> None:
        """Write a line to the guest's init, if it can be written now."""
        try:
            fd = os.open(self._control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(fd, line)
        except OSError:
            pass
        os.close(fd)
