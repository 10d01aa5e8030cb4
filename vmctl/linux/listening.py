"""Hearing of it when a server begins to listen, instead of knocking at its port a thousand times a second.

The kernel runs a program of ours (BPF_PROG_TYPE_SOCK_OPS) at each listen(2) of a control group, v2, and it writes the
port into a ring that poll(2) can wait for: struct bpf_sock_ops in linux/bpf.h, Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from vmctl.linux import syscalls
from vmctl.linux.cgroups import Cgroup, hierarchy

_OP, _LOCAL_PORT = 0, 68  # where they are in struct bpf_sock_ops
_TCP_LISTEN_CB = 11
_RINGBUF_OUTPUT = 130  # the helper's number
# one instruction each: code, source and destination register, offset, constant (Documentation/bpf/standardization)
_LOAD, _STORE, _COPY, _SET, _ADD = 0x61, 0x63, 0xBF, 0xB7, 0x07
_JUMP_UNLESS, _CALL, _EXIT, _LOAD_MAP = 0x55, 0x85, 0x95, 0x18
_MAP_FD = 1  # in the place of LOAD_MAP's source register


class Listening:
    """A descriptor, `fd`, that gets readable each time somebody in a control group listens on a TCP port."""

    def __init__(self, group: str, port: int) -> None:
        """Raise OSError or VmctlError where the kernel or our rights do not allow it."""
        self._fds = [syscalls.bpf_ring(os.sysconf("SC_PAGE_SIZE"))]
        try:
            self._fds.append(syscalls.bpf_sock_ops(_program(self.fd, port)))
            folder = os.open(_folder(group), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._fds.append(syscalls.bpf_link_sock_ops(self._fds[-1], folder))
            finally:
                os.close(folder)
        except BaseException:
            self.close()
            raise

    @property
    def fd(self) -> int:
        """The ring."""
        return self._fds[0]

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go; the kernel takes the program away with its last descriptor, after a crash too."""
        while self._fds:
            with suppress(OSError):
                os.close(self._fds.pop())


def _folder(group: str) -> str:
    """Return the group where it is one of v2, else the root of v2: there the program hears of other groups too."""
    layout = hierarchy()
    return Cgroup(group).folders["memory"] if layout.version == 2 else layout.unified


def _program(ring: int, port: int) -> bytes:
    """Return the program: if this is a listen(2) on our port, put the port, register 2, into the ring."""
    body = [
        _instruction(_LOAD, 2, 1, _OP),
        _instruction(_JUMP_UNLESS, 2, 0, 10, _TCP_LISTEN_CB),
        _instruction(_LOAD, 2, 1, _LOCAL_PORT),
        _instruction(_JUMP_UNLESS, 2, 0, 8, port),
        _instruction(_STORE, 10, 2, -4),
        _instruction(_LOAD_MAP, 1, _MAP_FD, 0, ring) + _instruction(0),
        _instruction(_COPY, 2, 10),
        _instruction(_ADD, 2, 0, 0, -4),
        _instruction(_SET, 3, 0, 0, 4),
        _instruction(_SET, 4),
        _instruction(_CALL, 0, 0, 0, _RINGBUF_OUTPUT),
        _instruction(_SET, 0, 0, 0, 1),
        _instruction(_EXIT),
    ]
    return b"".join(body)


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | destination, offset, constant)
