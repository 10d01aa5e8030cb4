"""Questions to a name server, as RFC 1035 describes them."""

import socket
import struct

A, PTR = 1, 12
NO_ERROR, NO_NAME, REFUSED = 0, 3, 5


def question(name, kind=A, number=7):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def ask(server, name, kind=A, timeout_s=60.0):
    """Return (code, addresses) of the answer for a name, asked from this network namespace. Raises TimeoutError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        client.connect((server, 53))
        client.send(question(name, kind))
        return answer(client.recv(4096))


def answer(raw):
    """Return (code, addresses) of an answer."""
    _, flags, questions, answers, _, _ = struct.unpack_from(">HHHHHH", raw)
    place = 12
    for _ in range(questions):
        place = _after_name(raw, place) + 4
    found = []
    for _ in range(answers):
        place = _after_name(raw, place)
        kind, _, _, size = struct.unpack_from(">HHIH", raw, place)
        if kind == A:
            found.append(socket.inet_ntoa(raw[place + 10 : place + 14]))
        place += 10 + size
    return flags & 0xF, sorted(found)


def _after_name(raw, place):
    while raw[place]:
        if raw[place] >= 0xC0:
            return place + 2
        place += raw[place] + 1
    return place + 1
