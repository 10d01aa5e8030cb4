"""One caller of a hub: what has arrived from it, what waits to be sent, and output that its window holds back."""

from __future__ import annotations

import os
import time

from vmctl.attach.frames import HEADER_BYTES, OUTPUT, PAYLOAD_BYTES, WINDOW_BYTES, frame


class Connection:
    """The connection with one caller; `owner`: the workload ends with it."""

    def __init__(self, fd: int, *, owner: bool) -> None:
        self.fd, self.owner = fd, owner
        self.arrived, self.waiting, self.input = bytearray(), bytearray(), bytearray()
        self.later = bytearray(), bytearray()  # of each stream
        self.sent = [0, 0]  # bytes that the caller has not acknowledged
        self.taken_s = time.monotonic()  # when it has last acknowledged some
        self.input_ended = False
        os.set_blocking(fd, False)

    def show(self, stream: int, data: bytes) -> None:
        """Send output, as far as the window allows; the rest waits."""
        if not any(self.later):
            self.taken_s = time.monotonic()
        self.later[stream].extend(data)
        self.send_more(stream)

    def send_more(self, stream: int) -> None:
        """Send what the window allows by now."""
        later = self.later[stream]
        while later and (room := WINDOW_BYTES - self.sent[stream] - HEADER_BYTES) > 0:
            part = bytes(later[: min(room, PAYLOAD_BYTES)])
            del later[: len(part)]
            self.sent[stream] += HEADER_BYTES + len(part)
            self.waiting += frame(0, OUTPUT + stream, part)

    def flush(self) -> None:
        """Send what can be sent. Raises OSError if the caller has gone."""
        try:
            while self.waiting:
                del self.waiting[: os.write(self.fd, self.waiting)]
        except BlockingIOError:
            pass
