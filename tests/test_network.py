import errno
import fcntl
import os
import shutil
import signal
import socket
import struct
import time
import traceback
from contextlib import closing, suppress

import pytest
from support.networks import Resident, attach, echo_server, host_view, resident

from vmctl.errors import StateError, UnavailableError
from vmctl.instances import instance
from vmctl.linux import netlink, syscalls, taps
from vmctl.linux.threads import in_thread
from vmctl.net import bridge, connect, switch, uplink
from vmctl.programs import run
from vmctl.spec.workload import Workload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture
def new(empty_root):
    """Makes instances, and undoes at the end what the test has not undone."""
    made = []

    def create(name):
        made.append(instance.create(Workload(name, "tiny"), "container"))
        return made[-1]

    yield create
    for inst in made:
        undo(inst)


def undo(inst):
    for entry in reversed(inst.journal.entries()):
        bridge.undo(inst.directory, entry)


def in_child(action):
    """Run `action` in a child and return its exit code, 0 for success."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def links():
    """Return the names of the links inside the switch."""
    return {name for _, name in switch.inside(socket.if_nameindex)}


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_first_makes_the_switch_and_the_last_takes_it_along(new, empty_root):
    one, two = new("one"), new("two")
    before = host_view(empty_root)
    attach(one)
    attach(two)
    assert links() >= {"lo", "vmctl0"}
    undo(one)
    assert switch.exists()
    undo(two)
    assert not switch.exists()
    assert not os.path.exists(switch.folder())
    assert host_view(empty_root) == before


def test_a_link_is_one_instance_s_own_and_attaching_again_returns_it(new):
    one, two = new("one"), new("two")
    first, second = attach(one), attach(two)
    assert attach(one) == first
    assert len(one.journal.entries()) == 1
    assert (first.gateway, first.prefix) == ("10.77.0.1", 16)
    for field in ("address", "mac", "device"):
        assert getattr(first, field) != getattr(second, field)
    assert (one.state.address, one.state.mac) == (first.address, first.mac)
    assert int(first.mac[:2], 16) & 0b11 == 0b10  # locally administered, not multicast
    assert len(first.device) < 16


def test_an_address_is_used_again(new):
    one = new("one")
    address = attach(one).address
    keeps_the_switch = new("two")
    attach(keeps_the_switch)
    undo(one)
    assert attach(new("three")).address == address


def test_a_container_is_reached_from_inside_the_switch(new):
    one = new("one")
    link = attach(one)
    with resident(link, echo_server(8000)):
        with connect.connect(link.address, 8000, timeout_s=60) as connection:
            connection.sendall(b"hello")
            assert connection.recv(10) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            connect.connect(link.address, 8001, timeout_s=5)


def test_containers_reach_each_other(new):
    one, two = new("one"), new("two")
    server, client = attach(one), attach(two)

    def ask(ready):
        with socket.create_connection((server.address, 8000), timeout=120) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"

    with resident(server, echo_server(8000)), resident(client, ask):
        pass  # `ask` has reported that it is done


def test_a_container_has_the_gateway_as_its_way_out(new):
    one = new("one")
    link = attach(one)
    with resident(link) as process:
        enter = ["nsenter", "-t", str(process.pid), "-n"]
        assert "default via 10.77.0.1 dev eth0" in run([*enter, "ip", "route"])[1]
        assert link.mac in run([*enter, "ip", "link", "show", "eth0"])[1]


def test_the_cable_of_a_dead_run_gives_way_to_the_next(new):
    one = new("one")
    link = attach(one)
    dead = Resident(link)
    link.network.plug(link, dead.pid)
    try:
        with resident(link, echo_server(8000)):
            connect.connect(link.address, 8000, timeout_s=60).close()
    finally:
        dead.end()


def test_plugging_into_a_process_that_is_gone_is_an_error(new):
    one = new("one")
    link = attach(one)
    gone = Resident(link)
    gone.end()
    with pytest.raises(UnavailableError, match="one"):
        link.network.plug(link, gone.pid)
    assert link.device not in links()


def test_a_guest_gets_its_first_packet_without_arp(new):
    one = new("one")
    link = attach(one)
    assert link.network.make_tap(link) == link.network.make_tap(link) == link.device
    tap = switch.inside(lambda: os.open("/dev/net/tun", os.O_RDWR))  # as libvirt opens it
    flags = taps.IFF_TAP | taps.IFF_NO_PI | taps.IFF_VNET_HDR
    fcntl.ioctl(tap, taps.TUNSETIFF, struct.pack("16sH22x", link.device.encode(), flags))
    with closing(connect.Connector(link.address, 8000)) as connector:
        frame = b""
        while frame[12:14] != b"\x08\x00":  # IPv4; a kernel with IPv6 may send some of that first
            assert connector.poll() is None
            assert frame[12:14] != b"\x08\x06", "asked by ARP"
            frame = os.read(tap, 2048)[10:]  # behind struct virtio_net_hdr
    os.close(tap)
    assert frame[:6].hex(":") == link.mac
    assert socket.inet_ntoa(frame[30:34]) == link.address


def test_a_network_without_the_guard_is_refused(new):
    """As an earlier version has made it, for instances that still run."""
    one, two = new("one"), new("two")
    for inst in (one, two):
        attach(inst)
    switch.inside(lambda: run(["nft", "delete", "table", "bridge", "vmctl"]))
    link = attach(one)
    with pytest.raises(UnavailableError, match="cannot be connected") as caught, resident(link):
        pass
    assert "vmctl down" in caught.value.hint
    with pytest.raises(UnavailableError) as caught:
        link.network.make_tap(attach(two))
    assert "vmctl down" in caught.value.hint


def test_removing_one_leaves_the_other_connected(new):
    one, two = new("one"), new("two")
    kept, removed = attach(one), attach(two)
    removed.network.make_tap(removed)
    with resident(kept, echo_server(8000)):
        undo(two)
        assert removed.device not in links()
        assert removed.mac not in switch.inside(lambda: run(["ip", "neigh", "show", "nud", "permanent"])[1])
        connect.connect(kept.address, 8000, timeout_s=60).close()


def test_undoing_twice_or_what_never_was_is_nothing(new, empty_root):
    one, two = new("one"), new("two")
    attach(one)
    two.journal.record("link", address="10.77.0.9", device="vm0badcafe")
    undo(two)
    assert switch.exists()
    undo(one)
    undo(one)
    assert not os.path.exists(switch.folder())


@pytest.mark.parametrize("step", ["_cut_off", "release"])
def test_an_undo_that_is_cut_short_is_done_again(new, step, monkeypatch):
    one, two = new("one"), new("two")
    attach(one)
    link = attach(two)
    link.network.make_tap(link)

    def be_killed():
        owner = switch if step == "release" else bridge.BridgeNetwork
        setattr(owner, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        undo(two)

    assert in_child(be_killed) == -signal.SIGKILL
    assert link.address in switch.used(switch.folder())
    undo(two)
    assert link.device not in links()
    assert link.address not in switch.used(switch.folder())


@pytest.mark.parametrize("kind", ["tap", "cable"])
def test_the_port_of_an_instance_removed_by_hand_is_replaced(new, kind):
    attach(new("keeps"))
    gone = new("gone")
    left = attach(gone)
    left.network.make_tap(left)
    gone.remove_files()
    assert left.address not in list(switch.in_use(switch.folder()))  # which gives it back
    link = attach(new("again"))
    assert link.address == left.address
    if kind == "tap":
        link.network.make_tap(link)
    else:
        with resident(link):
            pass
    assert left.device not in links()


def test_odd_names_in_the_folder_of_leases_harm_nobody(new):
    one = new("one")
    attach(one)
    folder = switch.folder()
    for name in ("1", "10.77.0.3 ", "٣", "0x7f.1", ".", "x" * 200):
        with suppress(FileExistsError, IsADirectoryError):
            open(os.path.join(folder, name), "x").close()
    open(os.path.join(folder, "10.77.0.3"), "x").close()  # no symbolic link
    os.mkdir(os.path.join(folder, "10.77.0.4"))
    os.symlink("10.77.0.5", os.path.join(folder, "10.77.0.5"))
    assert attach(new("two")).address == "10.77.0.6"
    assert list(switch.in_use(folder)) != []
    undo(instance.load("two"))
    undo(one)
    assert not switch.exists()
    shutil.rmtree(folder)


def test_the_address_of_another_is_not_given_back(new):
    one, two = new("one"), new("two")
    link = attach(one)
    link.network.make_tap(link)
    two.journal.record("link", address=link.address, device="vm0badcafe")
    undo(two)
    assert link.device in links()
    assert attach(one) == link


def test_what_a_killed_command_has_made_is_undone(new, empty_root):
    one = new("one")
    before = host_view(empty_root)

    def be_killed():
        link = attach(one)
        link.network.make_tap(link)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(be_killed) == -signal.SIGKILL
    assert switch.exists()
    undo(instance.load("one"))
    assert host_view(empty_root) == before


def test_a_file_left_by_a_reboot_is_replaced(new):
    one = new("one")
    os.makedirs(switch.folder())
    with open(switch.path(), "w", encoding="ascii"):
        pass
    assert not switch.exists()
    with pytest.raises(StateError):
        switch.inside(os.getpid)
    attach(one)
    assert switch.exists()


def test_a_switch_unmounted_by_hand_is_made_anew(new):
    one, two = new("one"), new("two")
    attach(one)
    run(["umount", switch.path()])
    link = attach(two)
    with resident(link, echo_server(8000)):
        connect.connect(link.address, 8000, timeout_s=60).close()


def test_an_instance_removed_by_hand_does_not_keep_the_switch(new):
    one, two = new("one"), new("two")
    attach(one)
    attach(two)
    two.remove_files()
    undo(one)
    assert not os.path.exists(switch.folder())


def test_many_at_once_never_share_an_address(empty_root):
    def live(name):
        def run_through():
            for turn in range(8):
                inst = instance.create(Workload(f"{name}{turn}", "tiny"), "container")
                link = attach(inst)
                link.network.make_tap(link)
                with open(f"{empty_root}/{inst.state.address}", "x", encoding="ascii"):  # fails where another has it
                    pass
                os.unlink(f"{empty_root}/{inst.state.address}")
                undo(inst)

        return run_through

    pids = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            os._exit(in_child(live(f"i{number}-")))
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    assert not os.path.exists(switch.folder())


def test_without_the_right_to_make_namespaces_it_says_so_and_leaves_nothing(new, empty_root):
    one = new("one")

    def try_it():
        syscalls.capset(0)
        with pytest.raises(UnavailableError, match="one cannot be made") as caught:
            attach(one)
        assert "root" in caught.value.hint

    assert in_child(try_it) == 0
    undo(one)
    assert not os.path.exists(switch.folder())


def test_it_needs_no_right_in_the_host_s_network_namespace(new):
    """As root of a user namespace, who cannot come back to the host's network namespace once it has left it."""
    one, guest = new("one"), new("guest")

    def try_it():
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        for name, line in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(line)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        with pytest.raises(PermissionError):
            syscalls.setns(home)
        link = attach(one)
        with resident(link, echo_server(8000)):
            connect.connect(link.address, 8000, timeout_s=60).close()
        tap = attach(guest)
        tap.network.make_tap(tap)
        assert tap.device in links()
        undo(one)
        undo(guest)
        assert not switch.exists()

    assert in_child(try_it) == 0


def test_the_netlink_socket_does_not_keep_a_removed_switch_alive(new):
    one = new("one")
    attach(one)
    assert switch._kept
    undo(one)
    assert switch._kept is None


def test_a_switch_made_by_another_command_is_used_at_once(new):
    one = new("one")
    attach(one)
    run(["umount", switch.path()])
    two = new("two")
    assert in_child(lambda: attach(two)) == 0
    assert links() - {uplink.WAN} == {"lo", "vmctl0"}
    switch.apply(netlink.delete_link("vmctl0"))
    assert links() - {uplink.WAN} == {"lo"}


def test_an_interrupted_thread_is_waited_for():
    ended = []

    def work():
        os.kill(os.getpid(), signal.SIGALRM)
        time.sleep(0.1)
        ended.append(True)

    def interrupt(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(TimeoutError):
            in_thread(work)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ended


def test_a_knock_is_answered_once_there_is_a_listener(new):
    one = new("one")
    link = attach(one)

    def late(ready):
        ready()
        time.sleep(0.05)
        echo_server(8000)(lambda: None)

    answers = []
    with closing(connect.Connector(link.address, 8000)) as connector:
        assert connector.poll() is None  # no process listens
        with resident(link, late):
            until(lambda: answers.append(connector.poll()) or answers[-1])
            with answers[-1] as connection:
                assert connection.getpeername() == (link.address, 8000)


def test_a_silent_address_times_out(new):
    link = attach(new("one"))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - a time-out or, from the kernel, no route
        connect.connect(link.address, 8000, timeout_s=0.1)
    assert isinstance(caught.value, TimeoutError) or caught.value.errno == errno.EHOSTUNREACH


def test_a_loopback_address_is_the_host_s_own(empty_root):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect.connect("127.0.0.1", listener.getsockname()[1], timeout_s=60).close()
    with pytest.raises(StateError, match="cannot be entered"):
        connect.connect("10.77.0.2", 80, timeout_s=1)
