"""Notice when a server begins to listen, without connecting to its port a thousand times a second.

The kernel runs our BPF program (BPF_PROG_TYPE_SOCK_OPS) at each listen(2) in a control group (v2). The program writes
the port to a ring buffer, and poll(2) can wait for that. See struct bpf_sock_ops in linux/bpf.h and
Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from vmctl.linux import syscalls
from vmctl.linux.cgroups import Cgroup, hierarchy

_OP, _LOCAL_PORT = 0, 68  # offsets in struct bpf_sock_ops
_TCP_LISTEN_CB = 11
_RINGBUF_OUTPUT = 130  # the helper's number
# one instruction each: code, source and destination register, offset, constant (Documentation/bpf/standardization)
_LOAD, _STORE, _COPY, _SET, _ADD = 0x61, 0x63, 0xBF, 0xB7, 0x07
_JUMP_UNLESS, _CALL, _EXIT, _LOAD_MAP = 0x55, 0x85, 0x95, 0x18
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD, in the source register of LOAD_MAP


class Listening:
    """A descriptor, `fd`, that becomes readable each time a process of a control group listens on a TCP port."""

    def __init__(self, group: str, port: int) -> None:
        """Raises OSError or VmctlError if the kernel or our privileges do not allow it."""
        self._fds = [syscalls.bpf_ring(os.sysconf("SC_PAGE_SIZE"))]
        try:
            self._fds.append(syscalls.bpf_program(syscalls.BPF_PROG_TYPE_SOCK_OPS, _program(self.fd, port)))
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
        """The descriptor of the ring buffer."""
        return self._fds[0]

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors. The kernel removes the program with the last one, so also after a crash."""
        while self._fds:
            with suppress(OSError):
                os.close(self._fds.pop())


def _folder(group: str) -> str:
    """Return the folder of the group on v2. On v1 return the root of v2, where the program sees every group."""
    layout = hierarchy()
    return Cgroup(group).folders["memory"] if layout.version == 2 else layout.unified


def _program(ring: int, port: int) -> bytes:
    """Return the program: if the event is a listen(2) on our port, write the port (register 2) to the ring buffer."""
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
