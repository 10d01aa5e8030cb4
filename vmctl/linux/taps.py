"""Taps: network interfaces whose packets a program reads and writes (the kernel's tuntap.rst, <linux/if_tun.h>)."""

from __future__ import annotations

import fcntl
import os
import struct

from vmctl import trace

TUNSETIFF, TUNSETPERSIST, TUNSETIFINDEX = 0x400454CA, 0x400454CB, 0x400454DA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000


def new_tap(name: str, index: int, *, headers: bool = True) -> None:
    """Create a persistent tap in the network namespace of this thread, unless it exists. Raises OSError.

    `index` is its interface index. With `headers`, packets have headers of virtio, as QEMU reads them.
    """
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if headers else 0)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFINDEX, struct.pack("I", index))
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
        if trace.on:
            trace.step(f"ip tuntap add {name} mode tap{' vnet_hdr' if headers else ''}")
    finally:
        os.close(fd)
