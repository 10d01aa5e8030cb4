"""A hostile neighbour on the same bridge, with every right in its own network, sends any frame and gains nothing."""

import socket
import time
from contextlib import ExitStack

import pytest
from support import frames
from support.attack_table import callers
from support.attacks import Cell
from support.commands import wait_for
from support.frames import BROADCAST, REPLY, REQUEST, Watch, arp, ethernet, udp
from support.networks import in_switch
from support.qemu_probe import as_qemu

from vmctl.net import switch
from vmctl.programs import run

pytestmark = pytest.mark.timeout(900)

GATEWAY = ("52:54:00:4d:00:01", "10.77.0.1")
LAST = b"the last frame"
SECRET = "cookie=7f3a9b"
RIGHTS = {"cap_add": ["NET_RAW", "NET_ADMIN"]}  # a tight network holds even against these


class Neighbour(Cell):
    """An instance on the bridge with the program that sends and watches frames."""

    def __init__(self, caller, mode, **keys):
        super().__init__(caller, mode, network="bridge", container=RIGHTS, **keys)
        self.address = caller.inspect(self.name)["address"]
        self.mac = f"52:54:00:{socket.inet_aton(self.address)[1:].hex(':')}"
        self.place = (self.mac, self.address)

    def port(self):
        """Return the name of its port in the switch."""
        links = in_switch(self.caller, "ip", "-o", "link")
        index = 77 << 16 | int.from_bytes(socket.inet_aton(self.address)[2:], "big")
        return next(line.split()[1].partition("@")[0] for line in links.splitlines() if line.startswith(f"{index}:"))

    def arp_of(self, address):
        """Return the MAC that its kernel has for an address."""
        lines = [line.split() for line in self.shell("cat /proc/net/arp").out.splitlines()]
        return next((line[3] for line in lines if line[0] == address), None)

    def get(self, address, path="/"):
        request = f"GET {path} HTTP/1.0\\r\\nCookie: {SECRET}\\r\\n\\r\\n"
        return self.shell(f"printf '{request}' | timeout 10 nc {address} 8000").out


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return frames.build(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def start(caller, program):
    """Starts neighbours, and ends them with the file."""
    with ExitStack() as stack:

        def start(mode, **keys):
            cell = Neighbour(caller, mode, **keys)
            stack.callback(cell.end)
            wait_for(lambda: cell.shell("true").code == 0)  # a slow guest starts its SSH server last
            frames.install(cell, program)
            return cell

        yield start


@pytest.fixture(scope="module")
def alice(start):
    """A container with a web server."""
    serve = "mkdir /w; echo alice >/w/index.html; exec httpd -f -p 8000 -h /w"
    return start("container", command=["sh", "-c", serve])


@pytest.fixture(scope="module")
def bob(start):
    """A container that uses the web server."""
    return start("container")


@pytest.fixture(scope="module")
def mallory(start, mode, alice, bob):
    """The attacker, in each mode."""
    return start(mode)


@pytest.fixture(scope="module")
def guest(caller):
    """A guest, whose SSH server is the way of `vmctl exec`."""
    ready = {"tcp": 8000, "timeout": "300s"}
    cell = Cell(caller, "vm", network="bridge", command=["httpd", "-f", "-p", "8000"], ready=ready)
    yield cell
    cell.end()


PRIORITY_TAG = b"\x81\x00\x00\x00"  # VLAN 0: Linux takes such a frame as if it had no tag
OTHER_VLAN = b"\x81\x00\x00\x05"
MARK = b"forged by mallory"
ROUTER = "2001:db8:bad::"

# Each returns a frame that mallory has no right to send: m, a, b are MAC and address of mallory, alice and bob.
FORGED = {
    "reply": lambda m, a, b: arp(REPLY, (m[0], a[1]), b),
    "gratuitous": lambda m, a, b: arp(REPLY, (m[0], a[1]), (BROADCAST, a[1])),
    "request": lambda m, a, b: arp(REQUEST, (m[0], a[1]), b),
    "gateway": lambda m, a, b: arp(REPLY, (m[0], GATEWAY[1]), b),
    "gateway to all": lambda m, a, b: arp(REQUEST, (m[0], GATEWAY[1]), b, to=BROADCAST),
    "clone": lambda m, a, b: arp(REPLY, a, b),
    "clone of the gateway": lambda m, a, b: arp(REPLY, GATEWAY, b),
    "other source in the frame": lambda m, a, b: arp(REPLY, m, b, frame_source=a[0]),
    "other source in ARP": lambda m, a, b: arp(REPLY, (a[0], m[1]), b, frame_source=m[0]),
    "no sender": lambda m, a, b: arp(REQUEST, (m[0], "0.0.0.0"), b, to=BROADCAST),
    "hardware of IEEE 802": lambda m, a, b: arp(REPLY, (m[0], a[1]), b, hardware=6),
    "priority tag": lambda m, a, b: arp(REPLY, (m[0], a[1]), b, tags=PRIORITY_TAG),
    "two tags": lambda m, a, b: arp(REPLY, (m[0], a[1]), b, tags=2 * PRIORITY_TAG),
    "another VLAN": lambda m, a, b: udp(m, b, (9, 9), MARK, tags=OTHER_VLAN),
    "address of a neighbour": lambda m, a, b: udp((m[0], a[1]), b, (9, 9), MARK),
    "address of the gateway": lambda m, a, b: udp((m[0], GATEWAY[1]), b, (9, 9), MARK),
    "address of another network": lambda m, a, b: udp((m[0], "192.0.2.7"), b, (9, 9), MARK),
    "address of the host": lambda m, a, b: udp((m[0], "127.0.0.1"), b, (9, 9), MARK),
    "address and MAC of a neighbour": lambda m, a, b: udp(a, b, (9, 9), MARK),
    "MAC of a neighbour": lambda m, a, b: udp((a[0], m[1]), b, (9, 9), MARK),
    "router": lambda m, a, b: frames.router_advertisement(m[0], ROUTER),
    "DHCP server": lambda m, a, b: udp(m, (BROADCAST, "255.255.255.255"), (67, 68), MARK),
    "DHCP client": lambda m, a, b: udp(m, (BROADCAST, "255.255.255.255"), (68, 67), MARK),
    "another protocol": lambda m, a, b: ethernet(b[0], m[0], 0x88B5, MARK),
    "802.3": lambda m, a, b: ethernet(b[0], m[0], 60, b"\xaa\xaa\x03\0\0\0\x08\x06" + MARK),
}


@pytest.mark.attack("sends frames as another: forged ARP, IPv4, MAC, VLAN tags, IPv6 router, DHCP server")
def test_forged_frames(mallory, alice, bob):
    forged = {kind: make(mallory.place, alice.place, bob.place) for kind, make in FORGED.items()}
    with Watch(bob) as watch:
        frames.send(mallory, *forged.values(), udp(mallory.place, bob.place, (9, 9), LAST))
    arrived = watch.frames()
    assert any(LAST in frame for frame in arrived)
    assert [kind for kind, frame in forged.items() if frame in arrived] == []
    assert not any(MARK in frame for frame in arrived)  # not with its tag removed either


@pytest.mark.attack("claims the address of a neighbour by ARP, reads the requests to it and answers them")
def test_neighbour_s_traffic(mallory, alice, bob):
    assert "alice" in bob.get(alice.address)
    mallory.shell(
        f"mkdir /w; echo mallory >/w/index.html; httpd -p 8000 -h /w; ip addr add {alice.address}/32 dev eth0"
    )
    time.sleep(1.5)  # for a second a kernel keeps what it has just learned
    kinds = ("reply", "request", "gratuitous", "priority tag")
    with Watch(mallory) as watch:
        frames.send(mallory, *(FORGED[kind](mallory.place, alice.place, bob.place) for kind in kinds))
        answer = bob.get(alice.address)
        frames.send(bob, udp(bob.place, mallory.place, (9, 9), LAST))
    mallory.shell(f"ip addr del {alice.address}/32 dev eth0")
    assert not any(SECRET.encode() in frame for frame in watch.frames())
    assert "alice" in answer
    assert bob.arp_of(alice.address) == alice.mac


@pytest.mark.attack("claims the address of the gateway by ARP")
def test_gateway(mallory, bob):
    bob.shell("ping -c 1 -W 5 10.77.0.1")
    assert bob.arp_of(GATEWAY[1]) == GATEWAY[0]
    time.sleep(1.5)
    kinds = ("gateway", "gateway to all")
    with Watch(bob) as watch:
        forged = [FORGED[kind](mallory.place, GATEWAY, bob.place) for kind in kinds]
        frames.send(mallory, *forged, udp(mallory.place, bob.place, (9, 9), LAST))
    assert not any(frame in forged for frame in watch.frames())  # the last one has arrived: so would these
    assert bob.arp_of(GATEWAY[1]) == GATEWAY[0]


@pytest.mark.attack("takes the address and the MAC of a neighbour for its own interface")
def test_clone(mallory, alice, bob):
    assert "alice" in bob.get(alice.address)
    with Watch(mallory) as watch:
        frames.send(mallory, *[FORGED["address and MAC of a neighbour"](mallory.place, alice.place, bob.place)] * 20)
        assert "alice" in bob.get(alice.address)
        frames.send(bob, udp(bob.place, mallory.place, (9, 9), LAST))
    assert not any(SECRET.encode() in frame for frame in watch.frames())


@pytest.mark.attack("waits for frames to a neighbour that was silent for so long that the bridge has forgotten its MAC")
def test_frames_to_a_silent_neighbour(caller, mallory, alice, bob):
    flush = ("ip", "link", "set", alice.port(), "type", "bridge_slave", "fdb_flush")
    with Watch(mallory) as watch:
        for _ in range(20):
            in_switch(caller, *flush)
            frames.send(bob, udp(bob.place, alice.place, (9, 9), MARK))
        frames.send(bob, udp(bob.place, mallory.place, (9, 9), LAST))
    assert not any(MARK in frame for frame in watch.frames())


@pytest.mark.attack("fills the bridge's table of MACs")
def test_flood(caller, mallory, alice, bob):
    mallory.exec("/frames", "flood", "eth0", "3000")
    known = in_switch(caller, "bridge", "fdb", "show")
    assert alice.mac in known
    assert len(known.splitlines()) < 200
    assert "alice" in bob.get(alice.address)


@pytest.mark.attack("makes a neighbour take an IPv6 address and the attacker as its router")
def test_ipv6_router(mallory, bob):
    before = bob.shell("ip -6 route; ip -6 addr").out
    with Watch(bob) as watch:
        router = FORGED["router"](mallory.place, None, None)
        frames.send(mallory, *[router] * 3, udp(mallory.place, bob.place, (9, 9), LAST))
    assert router not in watch.frames()  # the last one has arrived: so would these
    after = bob.shell("ip -6 route; ip -6 addr").out
    assert "2001:db8" not in after, before
    assert "fe80::bad" not in after


@callers("root")  # the socket is made in the switch
@pytest.mark.attack("answers in place of a neighbour to the host's side, by a MAC that the bridge treats differently")
def test_address_of_a_neighbour_to_the_gateway(mallory, alice):
    def listen():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((GATEWAY[1], 9))
        receiver.settimeout(60)
        return receiver

    macs = [GATEWAY[0], BROADCAST, "01:00:5e:00:00:01", *(f"01:80:c2:00:00:{number:02x}" for number in range(48))]
    with switch.inside(listen) as receiver:
        frames.send(mallory, *(udp((mallory.mac, alice.address), GATEWAY, (9, 9), MARK, to=mac) for mac in macs))
        frames.send(mallory, udp(mallory.place, GATEWAY, (9, 9), LAST))
        assert receiver.recv(100) == LAST


@pytest.mark.attack("uses a neighbour that forwards as a router to a third one")
def test_neighbour_as_router(caller, mallory, alice, bob):
    run(["nsenter", "-t", str(caller.inspect(bob.name)["pid"]), "-n", "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    with Watch(alice) as watch:
        frames.send(mallory, *[udp(mallory.place, (bob.mac, alice.address), (9, 9), MARK)] * 3)
        frames.send(mallory, udp(mallory.place, alice.place, (9, 9), LAST))
    assert not any(MARK in frame for frame in watch.frames())


def test_a_container_forwards_nothing_if_the_host_does(caller):
    before = run(["sysctl", "-n", "net.ipv4.ip_forward"])[1].strip()
    try:
        run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        with ExitStack() as stack:
            cell = Cell(caller, "container", network="bridge")
            stack.callback(cell.end)
            seen = cell.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/eth0/forwarding")
            assert seen.out == "0\n0\n"
    finally:
        run(["sysctl", "-qw", f"net.ipv4.ip_forward={before}"])


@pytest.mark.attack("logs in to, or only reaches, the SSH server of a neighbouring guest")
def test_ssh_of_a_guest(caller, mallory, guest):
    address = caller.inspect(guest.name)["address"]
    assert mallory.shell(f"timeout 20 nc -w 10 {address} 8000 </dev/null").code == 0
    seen = mallory.shell(f"timeout 10 nc -w 5 {address} 22 </dev/null")
    assert "SSH" not in seen.out
    assert seen.code != 0
    assert guest.alive()  # by SSH, from the host's side


@pytest.mark.attack("reaches the neighbours of its guest, as the host's side does, from a QEMU taken over", mode="vm")
def test_neighbours_of_a_qemu(caller, guest, alice):
    def reach():
        return socket.create_connection((alice.address, 8000), timeout=3)

    assert as_qemu(caller.inspect(guest.name)["pid"], {"reach": reach})["reach"][0] == "refused"


@pytest.mark.attack("reaches services of the host through the gateway: of all its addresses, or on published ports")
def test_services_of_the_host(caller, mallory):
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        addresses = (GATEWAY[1], "10.77.255.255", "127.0.0.1")
        mallory.shell_at_once(*(f"echo | timeout 4 nc -w 2 {address} {port}" for address in addresses))
        to_loopback = udp(mallory.place, (GATEWAY[0], "127.0.0.1"), (port, port), MARK)
        frames.send(mallory, to_loopback)
        with pytest.raises(BlockingIOError):
            server.accept()
    listening = {line.split()[4] for line in in_switch(caller, "ss", "-Hlntu").splitlines()}
    assert listening <= {f"{GATEWAY[1]}:53"}  # the name server of this network
