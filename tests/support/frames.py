"""Frames of an attacker, byte by byte, and the program that sends and watches them inside an instance."""

import base64
import os
import socket
import struct
import subprocess

BROADCAST = "ff:ff:ff:ff:ff:ff"
REQUEST, REPLY = 1, 2
SOURCE = os.path.join(os.path.dirname(__file__), "frames.c")


def octets(mac):
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(destination, source, kind, payload, tags=b""):
    head = octets(destination) + octets(source) + tags + kind.to_bytes(2, "big")
    return (head + payload).ljust(60, b"\0")


def arp(op, sender, target, *, frame_source=None, to=None, hardware=1, tags=b""):
    """An ARP frame; sender and target are pairs of MAC and address."""
    (mac, address), (target_mac, target_address) = sender, target
    payload = struct.pack("!HHBBH", hardware, 0x0800, 6, 4, op) + octets(mac) + socket.inet_aton(address)
    payload += octets(target_mac) + socket.inet_aton(target_address)
    return ethernet(to or target_mac, frame_source or mac, 0x0806, payload, tags)


def _checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(source, target, ports, content, *, to=None, tags=b""):
    """A UDP datagram in IPv4; source and target are pairs of MAC and address."""
    (mac, address), (target_mac, target_address) = source, target
    datagram = struct.pack("!HHHH", *ports, 8 + len(content), 0) + content
    addresses = socket.inet_aton(address) + socket.inet_aton(target_address)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + addresses
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return ethernet(to or target_mac, mac, 0x0800, head + datagram, tags)


def ipv6(source_mac, source, target_mac, target, icmp):
    """An ICMPv6 message."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    checksum = _checksum(addresses + struct.pack("!II", len(icmp), 58) + icmp)
    icmp = icmp[:2] + struct.pack("!H", checksum) + icmp[4:]
    head = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255)
    return ethernet(target_mac, source_mac, 0x86DD, head + addresses + icmp)


def router_advertisement(mac, prefix):
    """What makes a host take an address below `prefix`, and its sender as its router (RFC 4861, 4.2 and 4.6)."""
    source_link = struct.pack("!BB", 1, 1) + octets(mac)
    prefix_option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + socket.inet_pton(socket.AF_INET6, prefix)
    icmp = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + source_link + prefix_option
    return ipv6(mac, "fe80::bad", "33:33:00:00:00:01", "ff02::1", icmp)


def build(folder):
    """Compile the program for every image."""
    path = os.path.join(folder, "frames")
    subprocess.run(["cc", "-Os", "-s", "-static", "-o", path, SOURCE], check=True)
    return path


def install(cell, program):
    """Put the program into an instance as /frames."""
    with open(program, "rb") as file:
        content = base64.b64encode(file.read()).decode()
    cell.caller.ok("exec", cell.name, "--", "sh", "-c", "base64 -d >/frames; chmod +x /frames", stdin=content)


def send(cell, *frames):
    result = cell.exec("/frames", "send", "eth0", *(frame.hex() for frame in frames))
    assert result.code == 0, result


class Watch:
    """The frames that arrive at an instance while the block is executed, up to one that contains `end`."""

    def __init__(self, cell, end=b"the last frame"):
        self.cell, self.end = cell, end.decode()

    def __enter__(self):
        self.cell.shell(
            f"""rm -f /seen; /frames watch eth0 120 '{self.end}' >/seen 2>&1 </dev/null &
            until grep -q watching /seen; do sleep 0.1; done"""
        )
        return self

    def __exit__(self, *_):
        pass

    def frames(self):
        """Return what has arrived by the time of the last frame, which must arrive."""
        done = f"until grep -q {self.end.encode().hex()} /seen; do sleep 0.1; done; cat /seen"
        result = self.cell.shell(done, timeout_s=120)
        assert self.end.encode().hex() in result.out, result
        return [bytes.fromhex(line) for line in result.out.split()[1:]]
