"""An internet for tests: a host with a way out, and servers that it leads to, in network namespaces of the test.

    instances - switch - pasta | host: 192.0.2.2, 192.0.2.66 | 192.0.2.1, 198.51.100.1, 203.0.113.1, name server

vmctl runs in the network of that host. Nothing leaves this machine.
"""

import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from contextlib import ExitStack, suppress

from support.attacks import Caller
from support.commands import TIMEOUT_S, VMCTL, Result
from support.ordinary_user import OrdinaryUser

from vmctl.linux import syscalls
from vmctl.linux.threads import in_thread
from vmctl.programs import run

NEAR, FAR, OTHER = "192.0.2.1", "198.51.100.1", "203.0.113.1"
HOST, HOST_TOO = "192.0.2.2", "192.0.2.66"  # a second address, which pasta does not know of
NAMES = {"example.org": FAR, "other.example.net": OTHER, "pypi.example.org": FAR}
PORT, PORT_TOO = 8000, 8001


class Namespace:
    """A network and mount namespace, held by a process."""

    def __init__(self):
        ready, done = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            os.write(ready[1], b"r")
            signal.pause()
            os._exit(0)
        assert os.read(ready[0], 1) == b"r"
        for fd in (*ready, *done):
            os.close(fd)

    def enter(self, *words, mount=True):
        """Return the words that execute a command in it."""
        mounts = [f"--mount=/proc/{self.pid}/ns/mnt"] if mount else []
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *mounts, "--", *words]

    def run(self, *words):
        return run(self.enter(*words))[1]

    def inside(self, work):
        """Call `work` in a thread in its network."""

        def entered():
            with open(f"/proc/{self.pid}/ns/net", "rb") as file:
                syscalls.setns(file.fileno(), syscalls.CLONE_NEWNET)
            return work()

        return in_thread(entered)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Internet:
    """The host and the servers; a context manager."""

    def __enter__(self):
        self._stack = ExitStack()
        self.far, self.host = Namespace(), Namespace()
        self._stack.callback(self.far.end)
        self._stack.callback(self.host.end)
        self.asked = []  # names that the name server was asked for
        self.reached = []  # (address, port) of each connection and datagram
        self._connect()
        for address in (NEAR, FAR, OTHER):
            for port in (PORT, PORT_TOO):
                self._serve(self.far, address, port)
        self._serve_names()
        self._file = self._stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".conf"))
        self.resolve(f"nameserver {FAR}\n")
        self.host.run("mount", "--bind", self._file.name, "/etc/resolv.conf")
        os.chmod(self._file.name, 0o644)
        return self

    def __exit__(self, *_):
        self._stack.close()

    def resolve(self, text):
        """Write the host's resolv.conf."""
        with open(self._file.name, "w", encoding="ascii") as file:
            file.write(text)

    def _connect(self):
        self.host.run("ip", "link", "add", "up0", "type", "veth", "peer", "down0", "netns", str(self.far.pid))
        for place, link, addresses in ((self.host, "up0", (HOST, HOST_TOO)), (self.far, "down0", (NEAR,))):
            place.run("ip", "link", "set", "lo", "up")
            for address in addresses:
                place.run("ip", "address", "add", f"{address}/24", "dev", link)
            place.run("ip", "link", "set", link, "up")
        for address in (FAR, OTHER):
            self.far.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        self.host.run("ip", "route", "add", "default", "via", NEAR)

    def _serve(self, place, address, port):
        """Answer each request with the address."""
        listener = place.inside(lambda: socket.create_server((address, port), backlog=100))
        datagrams = place.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind((address, port))

        def accept():
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        self.reached.append((address, port))
                        connection.settimeout(60)
                        connection.recv(4096)
                        body = f"from {address}\n"
                        answer = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                        connection.sendall(answer.encode())

        def receive():
            with suppress(OSError):
                while True:
                    _, sender = datagrams.recvfrom(4096)
                    if sender is None:  # shut down
                        return
                    self.reached.append((address, port))
                    datagrams.sendto(f"from {address}\n".encode(), sender)

        self._start(accept, listener)
        self._start(receive, datagrams)

    def _serve_names(self):
        server = self.far.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        server.bind((FAR, 53))

        def receive():
            with suppress(OSError):
                while True:
                    question, sender = server.recvfrom(4096)
                    if sender is None:
                        return
                    server.sendto(self._answer(question), sender)

        self._start(receive, server)

    def _answer(self, question):
        """Return the answer to a question of DNS (RFC 1035)."""
        labels, place = [], 12
        while question[place]:
            labels.append(question[place + 1 : place + 1 + question[place]].decode("ascii", "replace"))
            place += 1 + question[place]
        name, end = ".".join(labels).lower(), place + 5
        self.asked.append(name)
        kind = struct.unpack_from(">H", question, place + 1)[0]
        address = NAMES.get(name) if kind == 1 else None
        code = 0 if name in NAMES else 3
        head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 1 if address else 0, 0, 0)
        record = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address) if address else b""
        return head + question[12:end] + record

    def _start(self, work, sock):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()

        def stop():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

        self._stack.callback(stop)

    def listen_on_host(self, address="0.0.0.0"):
        """Return a socket that listens on the host of the test."""
        return self.host.inside(lambda: socket.create_server((address, 0)))

    def command(self, *words):
        """Return the words that execute vmctl as root on that host."""
        return self.host.enter(VMCTL, *words)


class RootThere(Caller):
    """Runs vmctl as root on that host; other commands are given as to an ordinary user."""

    def __init__(self, folder, internet):
        super().__init__(folder)
        self.internet = internet

    def command(self, *words, folder=None):
        """Return (words, options) that execute a command there, for subprocess."""
        moved = ["env", "-C", folder or self.folder, *words]
        return self.internet.host.enter(*moved), {"env": dict(os.environ)}

    def run(self, *words, stdin="", timeout_s=TIMEOUT_S, folder=None, env=None, **options):
        """Run a command to its end with pipes as its streams."""
        words, others = self.command(*words, folder=folder)
        options = {"env": {**others["env"], **(env or {})}, "timeout": timeout_s, **options}
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, errors="replace", **options)
        return Result(done.returncode, done.stdout, done.stderr)

    def vmctl(self, *words, **options):
        return self.run(VMCTL, *words, **options)


class UserThere(OrdinaryUser):
    """An ordinary user whose network is that host's."""

    def __init__(self, internet):
        super().__init__()
        self.internet = internet

    def _furnish(self):
        super()._furnish()
        syscalls.mount(self.internet._file.name, "/etc/resolv.conf", None, syscalls.MS_BIND)

    def command(self, *words, folder=None):
        words, options = super().command(*words, folder=folder)
        return self.internet.host.enter(*words, mount=False), options
