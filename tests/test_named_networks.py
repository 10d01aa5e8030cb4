"""Networks by name: their names, their isolation and their name servers, without an instance's start."""

import os
import socket
import time

import pytest
from support.commands import wait_for
from support.names import NO_ERROR, NO_NAME, ask
from support.networks import echo_server, host_view, resident

from vmctl import net, networks
from vmctl.errors import ConflictError, NotFoundError, SpecError
from vmctl.journal import Journal
from vmctl.linux import processes
from vmctl.net import bridge, catalog, connect, names, resolver, subnets, switch, uplink
from vmctl.programs import run
from vmctl.spec.workload import Joined, NetworkOptions, Workload

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
pytestmark = [needs_root, pytest.mark.timeout(600)]


class Owner:
    """An instance as a network sees it: with a workload, and undone by its journal."""

    def __init__(self, folder, name, network="bridge", **keys):
        os.makedirs(folder, exist_ok=True)
        self.name, self.id, self.directory = (
            name,
            os.urandom(4).hex(),
            str(folder / f"{name}-{len(os.listdir(folder))}"),
        )
        os.makedirs(self.directory)
        self.journal = Journal(os.path.join(self.directory, "journal"))
        self.work = Workload(name, "tiny", network=network, **keys)
        self.links = ()

    def attach(self, held=None):
        self.links = net.attach(self.work, self, self.journal, held or {})
        return self

    @property
    def link(self):
        return self.links[0]

    def undo(self):
        for entry in reversed(self.journal.entries()):
            bridge.undo(self.directory, entry)


@pytest.fixture
def new(empty_root, tmp_path):
    """Gives owners their places, and takes them away at the end; nothing is left of them then."""
    networks.create("front", "10.201.0.0/24")
    networks.create("back", "10.201.1.0/24", internal=True)
    before = host_view(empty_root)
    made = []

    def create(name, network="bridge", **keys):
        made.append(Owner(tmp_path / "owners", name, network, **keys))
        return made[-1].attach()

    yield create
    for owner in made:
        owner.undo()
    assert not os.path.exists(switch.folder())
    assert host_view(empty_root) == before


def both(*names, **keys):
    return NetworkOptions(tuple(Joined(name) for name in names), **keys)


def inside(owner, work):
    """Return what `work` returns in a process in the place of an owner."""
    here, there = os.pipe()
    with resident(owner.link, lambda ready: os.write(there, repr(work()).encode())):
        os.close(there)
    with os.fdopen(here, encoding="utf-8") as answers:
        return eval(answers.read(), {"TimeoutError": TimeoutError})


def known(owner, name, server=None):
    """Return the code and the addresses that the name server of an owner has for a name; its port is open already."""
    return inside(owner, lambda: ask(server or owner.link.resolver, name))


def test_an_instance_is_known_by_name_alias_service_and_hostname(new):
    labels = {"vmctl.service": "data", "vmctl.stack": "shop"}
    options = both("front", aliases=("Cache",))
    db = new("shop-data-1", options, labels=labels, hostname="oracle")
    web = new("web", "front")
    for name in ("shop-data-1", "data", "cache", "CACHE", "oracle"):
        assert known(web, name) == (NO_ERROR, [db.link.address]), name
    assert known(web, "other")[0] == NO_NAME
    assert db.link.names == ("shop-data-1", "data", "cache", "oracle")
    assert net.hosts(db.links) == ((db.link.address, "shop-data-1 data cache oracle"),)
    assert net.name_servers(db.links) == f"nameserver {db.link.gateway}\nsearch .\noptions ndots:0\n"


def test_names_come_and_go_with_instances(new):
    web, db = new("web", "front"), new("db", "front")
    assert known(web, "db") == (NO_ERROR, [db.link.address])
    db.undo()
    wait_for(lambda: known(web, "db")[0] == NO_NAME, 60)
    again = new("db2", NetworkOptions((Joined("front", ("db",), "10.201.0.77"),)))
    assert again.link.address == "10.201.0.77"
    wait_for(lambda: known(web, "db") == (NO_ERROR, ["10.201.0.77"]), 60)


def test_a_name_is_taken_once_but_by_the_parts_of_one_service(new):
    labels = {"vmctl.service": "api", "vmctl.stack": "shop"}
    one, two = new("shop-api", "front", labels=labels), new("shop-api-2", "front", labels=labels)
    web = new("web", "front")
    assert known(web, "api") == (NO_ERROR, sorted((one.link.address, two.link.address)))
    for name, options in (
        ("api", "front"),
        ("x", both("front", aliases=("web",))),
        ("y", both("front", aliases=("API",))),
    ):
        with pytest.raises(ConflictError, match=r"the name (api|web) is taken in the network front by"):
            new(name, options)
    elsewhere = new("api", "back")  # another network
    assert elsewhere.link.names == ("api",)


def test_a_hostname_gives_way_to_a_name(new):
    first, second = new("one", "front", hostname="node"), new("two", "front", hostname="node")
    web = new("web", "front")
    assert known(web, "node") == (NO_ERROR, [first.link.address])
    assert second.link.names == ("two",)
    node = new("node", "front")
    wait_for(lambda: known(web, "node") == (NO_ERROR, [node.link.address]), 60)


def test_the_networks_know_nothing_of_each_other(new):
    web, db, _, _ = new("web", "front"), new("db", "back"), new("w2", "front"), new("d2", "back")
    assert known(web, "db")[0] == NO_NAME
    assert known(db, "web")[0] == NO_NAME
    assert (web.link.gateway, db.link.gateway) == ("10.201.0.1", "")  # `back` has no way out
    assert db.link.resolver == "10.201.1.1"


def test_an_instance_in_several_networks_knows_the_names_of_each(new):
    proxy = new("proxy", both("front", "back"))
    web, db, stranger = new("web", "front"), new("db", "back"), new("stranger")
    assert [link.inside for link in proxy.links] == ["eth0", "eth1"]
    assert [bool(link.gateway) for link in proxy.links] == [True, False]
    assert len({link.mac for link in proxy.links}) == 2
    for name, owner in (("web", web), ("db", db)):
        assert known(proxy, name) == (NO_ERROR, [owner.link.address])
    assert known(proxy, "stranger")[0] == NO_NAME
    assert known(web, "proxy") == (NO_ERROR, [proxy.links[0].address])
    assert known(db, "proxy") == (NO_ERROR, [proxy.links[1].address])
    server = proxy.link.resolver
    assert server not in (proxy.links[0].gateway, proxy.links[1].gateway)
    held = {"front": proxy.links[0].address, "back": proxy.links[1].address, "": server}
    assert proxy.attach(held).link.resolver == server
    proxy.undo()
    assert not os.path.exists(names.folder(server))
    assert stranger.link.network is bridge.DEFAULT


def test_the_first_instance_of_a_network_knows_one_that_is_in_others_too(new):
    web = new("web", "front")
    proxy = new("proxy", both("front", "back"))
    assert known(web, "proxy") == (NO_ERROR, [proxy.links[0].address])


@pytest.mark.parametrize("networks_of_it", [("front", "back"), ("back", "front")])
def test_an_instance_that_may_not_leave_knows_the_names_of_each_of_its_networks(new, networks_of_it):
    proxy = new("proxy", both(*networks_of_it, egress="none"))
    web, db = new("web", "front"), new("db", "back")
    for name, owner in (("web", web), ("db", db)):
        assert known(proxy, name) == (NO_ERROR, [owner.link.address])
    assert known(proxy, "example")[0] == NO_NAME
    with open(f"/proc/{server_pid(proxy.link.resolver)}/cmdline", encoding="utf-8") as file:
        assert "--server" not in file.read()


def test_an_instance_with_its_own_name_servers_and_one_that_gets_its_addresses_next(new):
    first = new("first", both("bridge", dns=(SERVER,), dns_search=("corp.test",), dns_opt=("ndots:2",)))
    place = first.link.resolver
    assert f"--server={SERVER}" in words_of(place)
    assert f"--server={resolver.UPSTREAM}" not in words_of(place)
    assert net.name_servers(first.links) == f"nameserver {place}\nsearch corp.test\noptions ndots:2\n"
    assert known(first, "first") == (NO_ERROR, [first.link.address])
    assert first.attach({"bridge": first.link.address, "": place}).link.resolver == place  # it runs already
    uid = resolver.uid_of(names.folder(place))
    assert f"{uid} . {SERVER}" in asked_of()
    first.undo()
    second = new("second", both("bridge", dns=("192.0.2.54",), egress=("192.0.2.54:53",)))
    assert second.links[0].address == first.links[0].address
    assert second.link.resolver == place
    assert SERVER not in asked_of()
    assert known(second, "second") == (NO_ERROR, [second.link.address])
    held = {"bridge": second.link.address, "": place}
    second.work = second.work._replace(network=both("bridge", "front"))  # `network connect`, before its next start
    assert second.attach(held).link.resolver == place
    web = new("web", "front")
    assert known(second, "web") == (NO_ERROR, [web.link.address])
    assert "192.0.2.54" not in asked_of()


SERVER = "192.0.2.53"


def words_of(place):
    with open(f"/proc/{server_pid(place)}/cmdline", encoding="utf-8") as file:
        return file.read().split("\0")


def asked_of():
    """Return the name servers outside that those of single instances may ask, as nft(8) shows them."""
    return switch.inside(lambda: run(["nft", "list", "set", "ip", uplink.TABLE, uplink.ASKED])[1])


def server_pid(place):
    with open(os.path.join(names.folder(place), "server"), encoding="ascii") as file:
        return file.read().split()[0]


def test_a_place_that_is_asked_for(new):
    asked = NetworkOptions((Joined("front", (), "10.201.0.9"),))
    one = new("one", asked)
    assert one.link.address == "10.201.0.9"
    with pytest.raises(ConflictError, match=r"the address 10\.201\.0\.9 of two is taken"):
        new("two", asked)
    for address in ("10.201.0.1", "10.201.0.0", "10.201.0.255", "10.202.0.5"):
        work = Workload("x", "tiny", network=NetworkOptions((Joined("front", (), address),)))
        assert [type(error) for error in net.refusals(work)] == [SpecError]
        with pytest.raises(SpecError):
            new(f"x{address}", work.network)
    (error,) = net.refusals(Workload("x", "tiny", network="missing"))
    assert isinstance(error, NotFoundError)


def test_a_network_is_removed_only_without_instances_even_if_one_is_just_coming(new):
    one = new("one", "front")
    gone = catalog.find("back")
    networks.remove("back")
    with pytest.raises(NotFoundError):
        gone.attach(one, one.journal)
    networks.create("back", "10.201.1.0/24", internal=True)


def test_the_mtu_is_the_largest_at_both_ends(new):
    one = new("one", "front")
    with resident(one.link, echo_server(8000)), connect.connect(one.link.address, 8000, timeout_s=60) as client:
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 30_000  # half of a window that is still small


def reaches(client, address, port=8000, timeout_s=1.0):
    def work():
        with socket.socket() as probe:
            probe.settimeout(timeout_s)
            return probe.connect_ex((address, port)) == 0

    return inside(client, work)


def test_nothing_passes_between_networks_though_the_switch_forwards(new):
    server, friend, stranger, other = new("a", "front"), new("b", "front"), new("c"), new("d", "back")
    switch.inside(lambda: _write("/proc/sys/net/ipv4/ip_forward", "1"))
    with resident(server.link, echo_server(8000)):
        assert reaches(friend, server.link.address, timeout_s=60)
        assert not reaches(stranger, server.link.address)
        assert not reaches(other, server.link.address)


def test_another_networks_name_server_and_gateway_are_out_of_reach(new):
    web, db, proxy = new("web", "front"), new("db", "back"), new("proxy", both("front", "back"))
    assert known(db, "db")[0] == NO_ERROR  # it runs

    def asks(server):
        try:
            return ask(server, "db", timeout_s=1)
        except OSError as error:
            return type(error).__name__

    for server in (db.links[0].resolver, proxy.link.resolver):
        assert inside(web, lambda server=server: asks(server)) in ("TimeoutError", (NO_NAME, []))
    assert known(web, "web")[0] == NO_ERROR


def _write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def server_of(network):
    place = names.folder(catalog.find(network).name)
    with open(os.path.join(place, "server"), encoding="ascii") as file:
        return [int(part) for part in file.read().split()], place


def test_the_name_server_is_another_user_with_one_privilege_and_a_root_without_the_host(new):
    new("web", "front")
    assert not os.path.exists(os.path.join(names.folder(catalog.find("front").name), "server"))  # nobody would ask
    new("db", "front")
    (pid, _, uid), _ = server_of("front")
    status = wait_for(lambda: (text := _status(pid))["Name"] == "dnsmasq" and text, 60)
    assert set(status["Uid"].split()) == {str(uid)}
    assert uid >= 0x70000000
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 1 << 10  # CAP_NET_BIND_SERVICE
    assert status["NoNewPrivs"] == "1"
    assert status["Groups"].strip() == ""
    assert status["NSpid"].split() == [str(pid), "1"]  # it knows no process of the host by a number
    assert sorted(os.listdir(f"/proc/{pid}/root")) == sorted(
        {"usr", "dev", "known0", *(name for name in ("bin", "sbin", "lib", "lib64") if os.path.lexists(f"/{name}"))}
    )
    assert os.listdir(f"/proc/{pid}/root/known0") == ["hosts"]
    assert sorted(os.listdir(f"/proc/{pid}/root/dev")) == ["null", "urandom"]


def _status(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def test_a_name_server_that_was_killed_is_started_again(new):
    web, _ = new("web", "front"), new("other", "front")
    (pid, start, _), _ = server_of("front")
    processes.end(pid, start)
    db = new("db", "front")
    assert known(web, "db") == (NO_ERROR, [db.link.address])


def test_a_command_killed_between_the_start_of_a_name_server_and_its_record_leaves_none(new):
    web, db = new("web", "front"), new("db", "front")
    (pid, start, uid), place = server_of("front")
    _write(os.path.join(place, "server"), f"- - {uid}")
    assert resolver._find(place) == pid
    web.undo()
    db.undo()
    deadline = time.monotonic() + 60
    while processes.alive(pid, start):
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "text",
    [
        "10.9.0.0",
        "10.9.0.0/8",
        "10.9.0.0/30",
        "10.9.0.1/24",
        "127.0.0.0/24",
        "224.0.0.0/24",
        "x/24",
        "10.9.0.0/x",
        "::/64",
    ],
)
def test_subnets_that_cannot_be(text):
    with pytest.raises(ValueError, match="subnet"):
        subnets.parse(text)


def test_a_new_network_gets_a_subnet_that_nobody_has():
    first = subnets.first_free([subnets.parse("10.77.0.0/16")])
    second = subnets.first_free([subnets.parse("10.77.0.0/16"), subnets.parse(first)])
    assert not subnets.overlap(subnets.parse(first), subnets.parse(second))
    assert bridge.mac_of("172.77.1.0") != bridge.mac_of("10.77.1.0")
