"""A hostile driver of a virtiofs device: it speaks vhost-user and FUSE to a file server, as QEMU does for a guest.

See QEMU's docs/interop/vhost-user.rst, the virtio specification 2.7 (split virtqueues) and linux/fuse.h.
"""

import errno
import os
import select
import socket
import struct

SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 8, 9, 10, 12, 13
VERSION_1 = 1 << 32
BASE, SIZE = 0x100000, 1 << 20  # of the shared memory, in the address space of the driver
DESCRIPTORS, AVAILABLE, USED, REQUEST, REPLY = 0, 0x1000, 0x2000, 0x10000, 0x40000
ENTRIES, REQUESTS = 16, 1  # entries of a queue; number of the queue for requests, 0 is for urgent ones
NEXT, WRITABLE = 1, 2
LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKNOD, MKDIR = 1, 2, 3, 4, 5, 6, 8, 9
RENAME, LINK, OPEN, READ, WRITE, INIT, OPENDIR, READDIR = 12, 13, 14, 15, 16, 26, 27, 28
ROOT = 1  # its node
TIMEOUT_S = 60.0


class EndedError(Exception):
    """The file server has ended."""


class Driver:
    """A connection to a file server."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.memory = os.memfd_create("guest")
        os.ftruncate(self.memory, SIZE)
        self.kick, self.call = os.eventfd(0), os.eventfd(0)
        self.unique = self.used = 0
        self._send(SET_OWNER)
        self._send(SET_FEATURES, struct.pack("<Q", VERSION_1))
        self._send(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, BASE, SIZE, BASE, 0), self.memory)
        self._send(SET_VRING_NUM, struct.pack("<II", REQUESTS, ENTRIES))
        self._send(SET_VRING_BASE, struct.pack("<II", REQUESTS, 0))
        places = (BASE + DESCRIPTORS, BASE + USED, BASE + AVAILABLE, 0)
        self._send(SET_VRING_ADDR, struct.pack("<IIQQQQ", REQUESTS, 0, *places))
        self._send(SET_VRING_CALL, struct.pack("<Q", REQUESTS), self.call)
        self._send(SET_VRING_KICK, struct.pack("<Q", REQUESTS), self.kick)
        code, _ = self.ask(INIT, 0, struct.pack("<IIII", 7, 31, 1 << 17, 0))
        assert code == 0

    def close(self):
        for fd in (self.memory, self.kick, self.call):
            os.close(fd)
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _send(self, request, payload=b"", fd=None):
        head = struct.pack("<III", request, 1, len(payload))
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
        self.socket.sendmsg([head + payload], rights)

    def ask(self, opcode, node, body=b"", *, ids=(0, 0), length=None):
        """Send a FUSE request; return the error number, 0 for none, and the body of the reply. Raises EndedError."""
        self.unique += 1
        size = 40 + len(body) if length is None else length
        head = struct.pack("<IIQQIIII", size, opcode, self.unique, node, *ids, 1, 0)
        os.pwrite(self.memory, head + body, REQUEST)
        self._offer([(REQUEST, 40 + len(body), 0), (REPLY, 1 << 17, WRITABLE)])
        size, code, _ = struct.unpack("<IiQ", os.pread(self.memory, 16, REPLY))
        return -code, os.pread(self.memory, max(0, size - 16), REPLY + 16)

    def _offer(self, buffers):
        for number, (place, size, flags) in enumerate(buffers):
            last = number == len(buffers) - 1
            entry = struct.pack("<QIHH", BASE + place, size, flags | (0 if last else NEXT), number + 1)
            os.pwrite(self.memory, entry, DESCRIPTORS + 16 * number)
        index = self.used
        os.pwrite(self.memory, struct.pack("<H", 0), AVAILABLE + 4 + 2 * (index % ENTRIES))
        self.used = index + 1 & 0xFFFF
        os.pwrite(self.memory, struct.pack("<HH", 0, self.used), AVAILABLE)
        os.eventfd_write(self.kick, 1)
        self._wait()

    def _wait(self):
        while struct.unpack("<HH", os.pread(self.memory, 4, USED))[1] != self.used:
            found, _, _ = select.select([self.call, self.socket], [], [], TIMEOUT_S)
            assert found, "the file server does not answer"
            if self.socket in found:
                raise EndedError
            os.eventfd_read(self.call)

    # What a driver of Linux would ask, without its checks

    def lookup(self, parent, name):
        """Return the error number and, without one, node and inode number of a name."""
        code, reply = self.ask(LOOKUP, parent, name + b"\0")
        return (code, 0, 0) if code else (0, struct.unpack_from("<Q", reply)[0], struct.unpack_from("<Q", reply, 40)[0])

    def inode(self, node):
        """Return the inode number of a node."""
        code, reply = self.ask(GETATTR, node, bytes(16))
        return None if code else struct.unpack_from("<Q", reply, 16)[0]

    def symlink(self, parent, name, target):
        return self.ask(SYMLINK, parent, name + b"\0" + target + b"\0")[0]

    def mknod(self, parent, name, mode, device=0, **ids):
        encoded = (os.minor(device) & 0xFF) | os.major(device) << 8 | (os.minor(device) & ~0xFF) << 12
        return self.ask(MKNOD, parent, struct.pack("<IIII", mode, encoded, 0, 0) + name + b"\0", **ids)[0]

    def rename(self, parent, name, to, new):
        return self.ask(RENAME, parent, struct.pack("<Q", to) + name + b"\0" + new + b"\0")[0]

    def link(self, node, parent, name):
        return self.ask(LINK, parent, struct.pack("<Q", node) + name + b"\0")[0]

    def read(self, node, flags=os.O_RDONLY):
        """Open and read a file; return the error number and the content."""
        code, reply = self.ask(OPEN, node, struct.pack("<II", flags, 0))
        if code:
            return code, b""
        return self.read_handle(node, struct.unpack_from("<Q", reply)[0])

    def read_handle(self, node, handle):
        return self.ask(READ, node, struct.pack("<QQIIQII", handle, 0, 4096, 0, 0, 0, 0))

    def write(self, node, data):
        """Open a file and write to it; return the error number."""
        code, reply = self.ask(OPEN, node, struct.pack("<II", os.O_WRONLY, 0))
        if code:
            return code
        handle = struct.unpack_from("<Q", reply)[0]
        return self.ask(WRITE, node, struct.pack("<QQIIQII", handle, 0, len(data), 0, 0, 0, 0) + data)[0]

    def listing(self, node):
        """Return the error number and the raw entries of a folder."""
        code, reply = self.ask(OPENDIR, node, struct.pack("<II", 0, 0))
        if code:
            return code, b""
        handle = struct.unpack_from("<Q", reply)[0]
        return self.ask(READDIR, node, struct.pack("<QQIIQII", handle, 0, 4096, 0, 0, 0, 0))


REFUSALS = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOENT, errno.ELOOP, errno.EBADF, errno.EROFS, errno.ENOSYS)
