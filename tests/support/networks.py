"""Processes in a separate network namespace, like containers, and the host as seen from outside."""

import asyncio
import os
import signal
from contextlib import contextmanager

from vmctl.instances import places
from vmctl.linux import syscalls
from vmctl.net import switch
from vmctl.programs import run, which


def attach(inst):
    """Give an instance its place in the network as a backend does."""
    (link,) = places.take(inst)
    return link


def in_switch(caller, *words):
    """Run a program as root in the switch of a caller of attack tests, and return its output."""
    pid, path = "self", switch.path()
    if caller.name == "user":  # it is mounted in that user's mount namespace
        mounts = ((pid, line.split()[4]) for pid in caller.user.processes() for line in _mounts(pid))
        ours = (caller.user.home, caller.user.runtime)
        pid, path = next(mount for mount in mounts if mount[1].endswith("/net/switch") and mount[1].startswith(ours))
    return run(["nsenter", f"--mount=/proc/{pid}/ns/mnt", "nsenter", f"--net={path}", *words])[1]


def _mounts(pid):
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        return file.read().splitlines()


class Resident:
    """A process in a new network namespace; on `settle` it configures its end of the cable and runs `work`."""

    def __init__(self, link, work=None):
        here, there = os.pipe()
        wait, self.go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(link, work, there, wait)
        os.close(there)
        os.close(wait)
        self.reports = here
        assert os.read(self.reports, 1) == b"n"  # the namespace is there

    def _live(self, link, work, there, wait):
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            os.write(there, b"n")
            os.read(wait, 1)
            link.network.configure_inside(link)
            if work:
                work(lambda: os.write(there, b"r"))
            os.write(there, b"r")
            signal.pause()
        finally:
            os._exit(1)

    def settle(self):
        """Let it configure its network and wait until its work is under way."""
        os.write(self.go, b"g")
        assert os.read(self.reports, 1) == b"r"

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.go)
        os.close(self.reports)


@contextmanager
def resident(link, work=None):
    """A process in the place `link` of its network, at work; gone afterwards."""
    process = Resident(link, work)
    try:
        link.network.plug(link, process.pid)
        process.settle()
        yield process
    finally:
        process.end()


def echo_server(port, protocol="tcp", address="0.0.0.0"):
    """Return work that answers every byte or datagram with itself, and a half-close with a half-close."""

    async def talk(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, sender):
            self.transport.sendto(data, sender)

    async def serve(ready):
        if protocol == "udp":
            await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=(address, port))
        else:
            await asyncio.start_server(talk, address, port, backlog=1024)
        ready()
        await asyncio.Event().wait()

    return lambda ready: asyncio.run(serve(ready))


def host_view(root):
    """What the host's side shows: links, routes, rules, our mounts, our files, our forwarders."""
    commands = [["ip", "-o", "link"], ["ip", "-o", "address"], ["ip", "route"], ["nft", "list", "ruleset"]]
    texts = [run(command, check=False)[1] for command in commands if which(command[0])]
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line for line in file if str(root) in line]
    files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(root / "run") for name in names)
    return [*texts, mounts, files, os.readlink("/proc/thread-self/ns/net"), forwarders(root)]


def forwarders(root):
    """Return the pids of processes whose standard error goes to a file below `root`."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            target = os.readlink(f"/proc/{name}/fd/2")
        except OSError:
            continue
        if target.startswith(str(root)):
            found.append(int(name))
    return found
