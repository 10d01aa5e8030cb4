"""Several networks in the switch, and what earlier versions have left there."""

import os
import signal
import socket
from typing import NamedTuple

import pytest
from support.networks import attach, echo_server, host_view, resident

from vmctl.errors import ConflictError
from vmctl.instances import instance
from vmctl.journal import Journal
from vmctl.linux import netlink
from vmctl.net import bridge, connect, network_of, switch, uplink
from vmctl.spec.workload import Workload

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

HERE = bridge.DEFAULT
OTHER = bridge.BridgeNetwork("vmctl1", "192.168.40.0/24", 78)


class Owner(NamedTuple):
    """What a network knows of an instance."""

    name: str
    id: str
    directory: str


class Place:
    """A link, its owner, and the journal that undoes it."""

    def __init__(self, folder, network, name):
        folder = folder / name
        folder.mkdir(parents=True)
        self.owner = Owner(name, os.urandom(4).hex(), str(folder))
        self.journal = Journal(str(folder / "journal"))
        self.link = network.attach(self.owner, self.journal)

    def undo(self):
        for entry in reversed(self.journal.entries()):
            bridge.undo(self.owner.directory, entry)


@pytest.fixture
def new(empty_root, tmp_path):
    """Makes places in networks, and undoes at the end what the test has not undone."""
    before = host_view(empty_root)
    made = []

    def create(network, name):
        made.append(Place(tmp_path / "owners", network, name))
        return made[-1]

    yield create
    for place in made:
        place.undo()
    assert not os.path.exists(switch.folder())
    assert host_view(empty_root) == before


def devices():
    """Return the names of the links inside the switch."""
    return {name for _, name in switch.inside(socket.if_nameindex)} - {"lo"}


def answers(link, port=8000):
    connect.connect(link.address, port, timeout_s=60).close()
    return True


@needs_root
def test_each_network_has_its_bridge_and_its_subnet(new):
    here, other, second = new(HERE, "here"), new(OTHER, "other"), new(OTHER, "second")
    assert devices() == {"vmctl0", "vmctl1"}
    assert [other.link.address, second.link.address] == ["192.168.40.2", "192.168.40.3"]
    assert (other.link.gateway, other.link.prefix) == ("192.168.40.1", 24)
    assert here.link.address in HERE.subnet
    assert here.link.address not in OTHER.subnet
    assert len({place.link.mac for place in (here, other, second)}) == 3


@needs_root
def test_instances_of_one_network_reach_each_other_and_none_of_another(new):
    server, friend, stranger = new(OTHER, "server"), new(OTHER, "friend"), new(HERE, "stranger")

    def asks(expected):
        def work(ready):
            with socket.socket() as client:
                client.settimeout(30 if expected else 1)  # a lost ARP request is repeated after a second
                assert (client.connect_ex((server.link.address, 8000)) == 0) == expected

        return work

    with resident(server.link, echo_server(8000)):
        assert answers(server.link)
        with resident(friend.link, asks(True)), resident(stranger.link, asks(False)):
            pass  # each has reported that its assertion held
    with switch.inside(lambda: open("/proc/sys/net/ipv4/ip_forward", encoding="ascii")) as file:
        assert file.read() == "0\n"  # independent of the host's setting


@needs_root
def test_the_last_instance_of_a_network_takes_its_bridge_along_and_no_other(new):
    here, other, second = new(HERE, "here"), new(OTHER, "other"), new(OTHER, "second")
    OTHER.make_tap(other.link)
    with resident(here.link, echo_server(8000)):
        other.undo()
        assert devices() == {"vmctl0", "vmctl1", here.link.device}
        second.undo()
        assert devices() == {"vmctl0", here.link.device}
        assert answers(here.link)
    assert new(OTHER, "third").link.address == other.link.address
    assert "vmctl1" in devices()


@needs_root
def test_a_bridge_that_a_killed_command_has_made_is_used(new):
    new(HERE, "here")
    switch.apply(netlink.new_bridge(OTHER.name, OTHER.index, "52:54:00:00:00:01"))
    other = new(OTHER, "other")
    with resident(other.link, echo_server(8000)):
        assert answers(other.link)


@needs_root
def test_a_command_killed_before_its_lease_leaves_nothing(new, empty_root, monkeypatch, tmp_path):
    here = new(HERE, "here")
    pid = os.fork()
    if pid == 0:
        switch.take = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        new(OTHER, "killed")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    folder = tmp_path / "owners" / "killed"
    (entry,) = Journal(str(folder / "journal")).entries()
    bridge.undo(str(folder), entry)
    assert switch.used(switch.folder()) == {here.link.address}
    assert new(OTHER, "killed-again").link.address == entry["address"]


@needs_root
def test_a_lease_lasts_as_long_as_its_owner_s_folder(new):
    kept, gone = new(HERE, "kept"), new(HERE, "gone")
    os.unlink(gone.journal.path)
    os.rename(gone.owner.directory, f"{gone.owner.directory}.moved")
    assert set(switch.in_use(switch.folder())) == {kept.link.address}
    assert switch.used(switch.folder()) == {kept.link.address}


@needs_root
def test_the_owner_is_known_by_any_path_of_its_folder(new, tmp_path):
    one = new(HERE, "one")
    (tmp_path / "link").symlink_to(tmp_path / "owners")
    (entry,) = one.journal.entries()
    again = HERE.attach(one.owner._replace(directory=str(tmp_path / "link/one")), one.journal, one.link.address)
    assert again == one.link
    bridge.undo(str(tmp_path / "link/one"), entry)
    assert not switch.exists()


# Instances of earlier versions: the lease points to NAME/ID, the journal does not name the network.


@pytest.fixture
def earlier(empty_root):
    """An instance as an earlier version has started it, with its tap."""
    inst = instance.create(Workload("earlier", "tiny"), "vm")
    link = attach(inst)
    link.network.make_tap(link)
    lease = os.path.join(switch.folder(), link.address)
    os.unlink(lease)
    os.symlink(f"{inst.name}/{inst.state.id}", lease)
    os.unlink(inst.journal.path)
    inst.journal.record("link", address=link.address, device=link.device)
    yield inst
    for entry in inst.journal.entries():
        bridge.undo(inst.directory, entry)


@needs_root
def test_an_earlier_lease_keeps_its_address(new, earlier):
    second = new(HERE, "second")
    assert second.link.address != earlier.state.address
    assert set(switch.in_use(switch.folder())) == {earlier.state.address, second.link.address}
    assert attach(earlier).address == earlier.state.address
    second.undo()
    assert switch.exists()


@needs_root
def test_an_earlier_journal_entry_is_undone(new, earlier):
    second = new(HERE, "second")
    (entry,) = earlier.journal.entries()
    assert set(entry) == {"kind", "address", "device"}
    assert entry["device"] in devices()
    bridge.undo(earlier.directory, entry)
    assert devices() - {uplink.WAN} == {"vmctl0"}
    assert switch.used(switch.folder()) == {second.link.address}


@needs_root
def test_an_earlier_lease_of_an_instance_that_is_gone_is_removed(earlier):
    address = earlier.state.address
    (entry,) = earlier.journal.entries()
    os.rename(earlier.directory, f"{earlier.directory}.gone")
    assert list(switch.in_use(switch.folder())) == []
    assert not os.path.lexists(os.path.join(switch.folder(), address))
    os.rename(f"{earlier.directory}.gone", earlier.directory)
    bridge.undo(earlier.directory, entry)
    assert not switch.exists()


# Without the kernel


def test_a_small_subnet_is_used_whole_and_then_full():
    subnet = bridge.Subnet("192.0.2.8/29")
    used = set()
    for number in range(10, 15):
        assert subnet.first_free(used) == f"192.0.2.{number}"
        used.add(f"192.0.2.{number}")
    assert subnet.gateway == "192.0.2.9"
    with pytest.raises(ConflictError, match=r"every address of 192\.0\.2\.8/29 is in use"):
        subnet.first_free(used)


@pytest.mark.parametrize(
    ("address", "inside"),
    [("192.0.2.8", True), ("192.0.2.15", True), ("192.0.2.7", False), ("192.0.2.16", False), ("10.0.0.9", False)],
)
def test_an_address_is_in_a_subnet(address, inside):
    assert (address in bridge.Subnet("192.0.2.8/29")) == inside


def test_the_default_network_counts_past_a_byte():
    used = {f"10.77.0.{number}" for number in range(256)}
    assert HERE.subnet.first_free(used) == "10.77.1.0"
    assert bridge.mac_of("10.77.1.0") == "52:54:00:4d:01:00"


def test_a_preview_reserves_nothing(empty_root):
    link = HERE.preview(Owner("web", "<id>", ""))
    assert (link.address, link.device, link.owner) == ("10.77.0.2", "vm<id>", "web")
    assert link.device in HERE.tap_command(link)
    assert not os.path.exists(switch.folder())


def test_the_choice_of_a_network():
    assert network_of("bridge") is HERE
    assert network_of("none") is None
    assert network_of("host") is None
