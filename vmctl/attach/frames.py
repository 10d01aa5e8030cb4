"""The frames between a caller and what has the streams of its command: the agent of a guest, or a hub on the host.

To the agent they go from `vmctl exec` through the recorder and QEMU (vmm/broker.py), to a hub through one socket
(vmctl/attach/hub.py), which knows those of streams, RESIZE, SIGNAL, DETACH and EXIT.

A frame is a header of 8 bytes, little-endian, and a payload: channel (4), kind (1), zero (1), bytes of the payload (2).
A channel is one command; channel 0 is the connection itself. See vmm/guest/program/frames.h for the other side.

- The agent begins with HELLO and a nonce; the host answers with SYNC and the same nonce, and its frames follow. So both
  sides begin at a frame, also if the agent was started again.
- REQUEST frames contain the command (see `vmm.agent.request`), START ends them. The answer is STARTED, with
  the boot id of the agent's kernel, or FAILURE.
- INPUT, OUTPUT and ERROR_OUTPUT carry the streams. Of each stream at most WINDOW_BYTES are on the way: the receiver
  returns CREDIT or INPUT_CREDIT for what it has passed on. So a stream that nobody reads stops only itself.
- DETACH: the caller goes, and what it is connected with runs on. LEAVE: it ends.
- EXIT has the exit code, and how many bytes of the input were not read.
- A hub sends with STARTED, and by CLOSING, when it began and ended to pass output on: what the log has from other times
  was not shown by this connection.

It has no imports: recorder and supervisor are small.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_BYTES, PAYLOAD_BYTES, WINDOW_BYTES, NONCE_BYTES = 8, 16384, 1 << 18, 16

SYNC, REQUEST, START, INPUT, INPUT_END, CREDIT, SIGNAL, RESIZE, STOP_OUTPUT, LEAVE, PING, DETACH = range(1, 13)
HELLO, STARTED, OUTPUT, ERROR_OUTPUT, INPUT_CREDIT, INPUT_GONE, EXIT, FAILURE, PONG, CLOSING = range(32, 42)


def frame(channel: int, kind: int, payload: bytes = b"") -> bytes:
    """Return a frame; the payload has at most PAYLOAD_BYTES."""
    return channel.to_bytes(4, "little") + bytes((kind, 0)) + len(payload).to_bytes(2, "little") + payload


def numbers(*values: int) -> bytes:
    """Return a payload of numbers of 4 bytes."""
    return b"".join(value.to_bytes(4, "little") for value in values)


def number(payload: bytes, index: int = 0) -> int:
    """Return a number of a payload; 0 if the payload is too short."""
    return int.from_bytes(payload[4 * index : 4 * index + 4], "little")


def moment(time_ns: int) -> bytes:
    """Return a payload of a time in nanoseconds since 1970."""
    return time_ns.to_bytes(8, "little")


def moment_of(payload: bytes, default_ns: int) -> int:
    """Return the time of a payload; the default if it has none, as from an earlier vmctl."""
    return int.from_bytes(payload, "little") if len(payload) == 8 else default_ns


def take(arrived: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Remove the complete frames from the bytes that have arrived; yield channel, kind and payload of each.

    Raises ValueError if the bytes do not follow this form.
    """
    start = 0
    try:
        while len(arrived) - start >= HEADER_BYTES:
            head = arrived[start : start + HEADER_BYTES]
            size = head[6] | head[7] << 8
            if head[5] or size > PAYLOAD_BYTES:
                raise ValueError("the bytes do not follow the form of frames")
            end = start + HEADER_BYTES + size
            if len(arrived) < end:
                return
            start, payload = end, bytes(arrived[start + HEADER_BYTES : end])
            yield int.from_bytes(head[:4], "little"), head[4], payload
    finally:
        del arrived[:start]
