"""A hostile instance in one of several networks: it reaches no other network, and names stay what they are."""

import socket
import struct
from contextlib import ExitStack

import pytest
from support import frames
from support.attack_table import callers
from support.attacks import Cell
from support.commands import wait_for
from support.frames import Watch, udp
from support.names import question
from support.networks import in_switch

pytestmark = pytest.mark.timeout(900)

FRONT, BACK = "10.203.0.0/24", "10.203.1.0/24"
GATEWAY, BACK_GATEWAY = ("52:54:00:cb:00:01", "10.203.0.1"), "10.203.1.1"
RIGHTS = {"cap_add": ["NET_RAW", "NET_ADMIN"]}
LAST = b"the last frame"


@pytest.fixture(scope="module")
def start(caller, tmp_path_factory):
    """Starts instances in networks `front` and `back`, and ends them with the file."""
    program = frames.build(tmp_path_factory.mktemp("frames"))
    with ExitStack() as stack:
        for name, subnet in (("front", FRONT), ("back", BACK)):
            caller.ok("network", "create", "--subnet", subnet, name)
            stack.callback(caller.vmctl, "network", "rm", name)

        def start(mode, network, **keys):
            cell = Cell(caller, mode, network=network, container=RIGHTS, **keys)
            stack.callback(cell.end)
            frames.install(cell, program)
            row = caller.inspect(cell.name)
            cell.address = row["address"]
            first, *rest = socket.inet_aton(cell.address)
            cell.place = (f"52:54:{first ^ 10:02x}:{bytes(rest).hex(':')}", cell.address)
            return cell

        yield start


@pytest.fixture(scope="module")
def clerk(start):
    """A neighbour of the victim: with two instances, the other network has a name server."""
    return start("container", "back")


@pytest.fixture(scope="module")
def vault(start, clerk):
    """The victim: a container in the other network, with a web server."""
    serve = "mkdir /w; echo vault >/w/index.html; exec httpd -f -p 8000 -h /w"
    return start("container", {"networks": ["back"], "aliases": ["safe"]}, command=["sh", "-c", serve])


@pytest.fixture(scope="module")
def friend(start):
    """A neighbour of the attacker."""
    return start("container", {"networks": ["front"], "aliases": ["friend"]})


@pytest.fixture(scope="module")
def mallory(start, mode, vault, friend):
    return start(mode, "front")


def look_up(cell, name, server=""):
    return cell.shell(f"timeout 3 nslookup {name} {server}").out.partition("Name:")[2]


@pytest.fixture
def forwarding(caller):
    """The switch forwards, as it does when one of its instances may leave it."""
    before = in_switch(caller, "cat", "/proc/sys/net/ipv4/ip_forward").strip()
    in_switch(caller, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    yield
    in_switch(caller, "sysctl", "-qw", f"net.ipv4.ip_forward={before}")


@pytest.mark.attack("reaches an instance of another network by a route through the switch, which forwards")
def test_route_to_another_network(mallory, vault, clerk, forwarding):
    assert "vault" in vault.shell(f"wget -qO- http://{vault.address}:8000/").out
    mallory.shell(f"ip route replace {BACK} via {GATEWAY[1]}")
    with Watch(vault) as watch:
        through = udp(mallory.place, (GATEWAY[0], vault.address), (9, 9), b"through the switch")
        frames.send(mallory, *[through] * 5)
        assert mallory.shell(f"timeout 4 wget -qO- http://{vault.address}:8000/").out == ""
        frames.send(clerk, udp(clerk.place, vault.place, (9, 9), LAST))
    assert not any(b"through the switch" in frame for frame in watch.frames())
    mallory.shell(f"ping -c 1 -W 5 {GATEWAY[1]}")
    assert GATEWAY[0] in mallory.shell("cat /proc/net/arp").out  # the frames were for the switch


@pytest.mark.attack("asks the name server of another network for its names, and takes an address of that network")
def test_names_of_another_network(mallory, vault, friend, forwarding):
    assert vault.address in wait_for(lambda: look_up(vault, "safe"), 120)
    assert friend.address in wait_for(lambda: look_up(mallory, "friend"), 120)
    mallory.shell(f"ip route replace {BACK} via {GATEWAY[1]}; ip address add 10.203.1.99/24 dev eth0")
    questions = [f"{name} {server}" for name in ("safe", vault.name) for server in ("", BACK_GATEWAY)]
    by_tcp = f"timeout 5 nc -w 3 {BACK_GATEWAY} 53 </dev/null && echo Name:"
    seen = mallory.shell_at_once(by_tcp, *(f"timeout 3 nslookup {question}" for question in questions))
    assert "Name:" not in seen.out
    mallory.shell("ip address del 10.203.1.99/24 dev eth0")
    assert look_up(mallory, "friend") != ""


UPDATE = 0x2800  # RFC 2136


def update(name, address):
    """A request to give a name another address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    zone = b"\0" + struct.pack(">HH", 6, 1)
    record = labels + b"\0" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
    return struct.pack(">HHHHHH", 7, UPDATE, 1, 0, 1, 0) + zone + record


def forged(name, address):
    """An answer that nobody asked for: the name, at this address."""
    asked = question(name)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
    return asked[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + asked[12:] + record


@callers("root")  # for a user it is the same program with the same input
@pytest.mark.attack("makes a name of a neighbour its own: by an update, by answers that nobody has asked for")
def test_update_and_forged_answers(mallory, friend):
    assert friend.address in wait_for(lambda: look_up(friend, "friend"), 120)
    server = (*GATEWAY,)
    sent = [udp(mallory.place, server, (5353, 53), make("friend", mallory.address)) for make in (update, forged)]
    sent += [
        udp((mallory.place[0], GATEWAY[1]), friend.place, (53, port), forged("friend", mallory.address))
        for port in range(32768, 32800)
    ]
    frames.send(mallory, *sent)
    assert friend.address in look_up(friend, "friend")
    assert mallory.address not in look_up(friend, "friend")


BROKEN = {
    "empty": b"",
    "short": b"\0\7\1",
    "no question": struct.pack(">HHHHHH", 7, 0x100, 0, 0, 0, 0),
    "many questions": struct.pack(">HHHHHH", 7, 0x100, 65535, 65535, 65535, 65535),
    "name without an end": struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\x3f" + b"a" * 40,
    "name that points to itself": struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
    "name beyond the end": struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\xff\xff\0\1\0\1",
    "long name": struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
    "odd letters": question("a") + b"\0\n\r\t ../../etc/passwd",
    "large EDNS": question("a")[:10] + b"\0\1" + question("a")[12:] + b"\0\0\x29\xff\xff\0\0\0\0\xff\xff" + b"x" * 900,
    "transfer of the zone": question("", 252),
    "any": question("friend", 255),
}


@callers("root")  # for a user it is the same program with the same input
@pytest.mark.attack("ends or blocks the name server with broken and very many questions")
def test_broken_questions(mallory, friend):
    assert look_up(friend, "friend") != ""
    packets = [udp(mallory.place, GATEWAY, (5000 + number, 53), text) for number, text in enumerate(BROKEN.values())]
    for _ in range(5):
        frames.send(mallory, *packets * 8)
    assert friend.address in wait_for(lambda: look_up(friend, "friend"), 120)


@callers("root")  # for a user it is the same program with the same input
@pytest.mark.attack("gets what the name server sees of the host: its hosts file, its version, its servers")
def test_what_the_name_server_tells(mallory):
    with open("/etc/hostname", encoding="utf-8") as file:
        hostname = file.read().strip()
    for name in (hostname, "localhost.localdomain", "ip6-allnodes"):
        assert look_up(mallory, name) == ""
    for name in ("version.bind", "servers.bind", "hits.bind", "auth.bind"):
        seen = mallory.shell(f"timeout 3 nslookup -type=txt -class=chaos {name}").out
        assert "dnsmasq" not in seen
        assert "text =" not in seen


@pytest.mark.attack("takes the name of a neighbour by an alias, its host name, a label or the text of one", mode="any")
def test_names_that_a_workload_asks_for(caller, start, friend):
    taken = (
        ("--network-alias", "friend"),
        ("--network-alias", "FRIEND"),
        ("--network-alias", friend.name),
        ("--label", "vmctl.service=friend"),
    )
    for words in taken:
        error = caller.refused("run", "--network", "front", *words, "tiny", "--", "true")
        assert "is taken in the network front by" in error
    odd = ("--label", "vmctl.service=x\n10.203.0.66 bank", "--label", "vmctl.stack=a\n10.203.0.67 bank2")
    caller.ok(
        "run", "-d", "--name", "odd", "--network", "front", "--hostname", "friend", *odd, "tiny", "--", "sleep", "1000"
    )
    try:
        assert look_up(friend, "friend").count("Address") == 1
        assert friend.address in look_up(friend, "friend")
        assert look_up(friend, "bank") == look_up(friend, "bank2") == ""
        assert look_up(friend, "odd") != ""
    finally:
        caller.ok("rm", "-f", "odd")
