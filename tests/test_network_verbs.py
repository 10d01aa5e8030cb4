"""`vmctl network`, and what `run` and files refuse about networks before anything starts."""

import json
import os

import pytest
from support.commands import ok, refused, vmctl

from vmctl import networks, paths
from vmctl.errors import SpecError
from vmctl.net import catalog
from vmctl.spec import flags, rules, workloadfile
from vmctl.spec.workload import Joined, NetworkOptions, Workload

pytestmark = pytest.mark.timeout(300)


def choice(value):
    return workloadfile.convert({"name": "a", "image": "b", "network": value}).network


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("bridge", "bridge"),
        ("back", "back"),
        ({"networks": ["back"]}, "back"),
        ({"networks": [{"name": "back"}]}, "back"),
        ({"aliases": ["db"]}, NetworkOptions(aliases=("db",))),
        ({"dns_search": ["a.test"]}, NetworkOptions(dns_search=("a.test",))),
        (
            {"dns": ["192.0.2.1"], "egress": ["192.0.2.1"], "dns_search": ["."], "dns_opt": ["ndots:2", "rotate"]},
            NetworkOptions((Joined("bridge"),), (), ("192.0.2.1",), ("192.0.2.1",), (".",), ("ndots:2", "rotate")),
        ),
        (
            {"networks": ["a", {"name": "b", "aliases": ["x"], "address": "10.1.1.1"}], "aliases": ["y"]},
            NetworkOptions((Joined("a"), Joined("b", ("x",), "10.1.1.1")), ("y",)),
        ),
    ],
)
def test_a_file_names_networks(written, read):
    assert choice(written) == read
    work = Workload("a", "b", network=read)
    assert Workload.from_json(work.to_json()) == work


@pytest.mark.parametrize(
    ("written", "error"),
    [
        (5, "the key network: expected a text or a mapping"),
        ("a/b", "the key network: expected bridge, none, host or the name of a network, got 'a/b'"),
        ({"networks": []}, "network.networks: expected 1 to 8 networks, got 0"),
        ({"networks": [str(number) for number in range(9)]}, "expected 1 to 8 networks, got 9"),
        ({"networks": ["none"]}, r"network.networks\[0\]: none cannot be combined"),
        ({"networks": ["a", "a"]}, r"network.networks\[1\]: the network a is given twice"),
        ({"networks": [{"name": "a", "address": "10.0.0"}]}, r"networks\[0\].address: expected an IPv4 address"),
        ({"networks": [{"alias": "a"}]}, "alias is unknown"),
        *(
            ({"dns": [address]}, r"network.dns\[0\]: expected an IPv4 address")
            for address in (
                "",
                "::1",
                "10.1",
                "a.test",
                "192.0.2.1\nnameserver 192.0.2.2",
                "192.0.2.1#54",
                "/a.test/192.0.2.1",
            )
        ),
        ({"dns": ["192.0.2.1"] * 9}, "network.dns: expected at most 8 name servers, got 9"),
        ({"dns": ["192.0.2.1"], "egress": "none"}, "network.dns: with egress none no name server can be reached"),
        ({"dns": ["192.0.2.1"], "networks": ["none"]}, "network.dns: it needs a network, and the network is none"),
        ({"dns_opt": ["rotate"], "networks": ["host"]}, "network.dns_opt: the host's network has its name servers"),
        *(
            ({"dns_search": [domain]}, r"network.dns_search\[0\]: expected up to 32 domains")
            for domain in ("", "a b", "a\noptions x", "a..b", "-a", ".a", "x" * 64 + ".test", "ä.test", "a." * 127)
        ),
        ({"dns_search": ["a.test", "."]}, r"network.dns_search\[1\]"),
        ({"dns_search": ["a.test"] * 33}, r"network.dns_search\[32\]"),
        *(
            ({"dns_opt": [option]}, r"network.dns_opt\[0\]: expected an option such as ndots:2")
            for option in ("", "a b", "ndots:", "ndots:x", "a\nnameserver 192.0.2.2", "NDOTS:1", "ndots:123456")
        ),
        *(
            ({"aliases": [alias]}, "network.aliases: expected a name such as db")
            for alias in (
                "",
                "a b",
                "a\nb",
                "10.1",
                "0x7f.1",
                "localhost",
                "a#b",
                "a.",
                "x" * 64,
                "ä",
                "-a",
                "*",
                "a\0b",
            )
        ),
    ],
)
def test_a_file_is_refused_with_the_key(written, error):
    with pytest.raises(SpecError, match=error):
        choice(written)


@pytest.mark.parametrize(
    ("names", "aliases", "address", "read"),
    [
        ([], [], None, "bridge"),
        (["none"], [], None, "none"),
        (["back"], [], None, "back"),
        (["a", "b"], [], None, NetworkOptions((Joined("a"), Joined("b")))),
        (["a:alias=x,alias=y,ip=10.1.1.1"], [], None, NetworkOptions((Joined("a", ("x", "y"), "10.1.1.1"),))),
        (["name=a,alias=x"], ["z"], None, NetworkOptions((Joined("a", ("x",)),), ("z",))),
        ([], [], "10.77.3.4", NetworkOptions((Joined("bridge", (), "10.77.3.4"),))),
    ],
)
def test_flags_say_the_same_as_a_file(names, aliases, address, read):
    assert flags.networks(names, aliases, address, []) == read


def test_flags_say_how_names_are_looked_up():
    found = flags.networks([], [], None, [], ["192.0.2.1"], ["a.test"], ["rotate"])
    assert found == choice({"dns": ["192.0.2.1"], "dns_search": ["a.test"], "dns_opt": ["rotate"]})
    with pytest.raises(SpecError, match="it needs a network"):
        rules.check(Workload("a", "b", network=flags.networks(["none"], [], None, [], ["192.0.2.1"], [], [])))


def test_networks_are_made_listed_and_removed(empty_root):
    assert ok("network", "create", "--label", "project=shop", "front") == "front\n"
    assert ok("network", "create", "-d", "bridge", "--internal", "--subnet", "10.202.0.0/16", "--mtu", "1400", "back")
    assert ok("network", "ls", "-q") == "bridge\nback\nfront\n"
    assert ok("network", "ls", "-q", "-f", "label=project=shop") == "front\n"
    assert ok("network", "list", "-q", "-f", "name=ac") == "back\n"
    (back,) = json.loads(ok("network", "inspect", "back"))
    seen = {key: back[key] for key in ("subnet", "gateway", "internal", "mtu", "instances")}
    expected = {"subnet": "10.202.0.0/16", "gateway": "10.202.0.1", "internal": True, "mtu": 1400, "instances": []}
    assert seen == expected
    assert ok("network", "prune", "-f") == "back\nfront\n"
    assert ok("network", "rm", "-f", "back") == "back\n"
    assert not os.path.exists(catalog.folder())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("create", "bridge"), "there is a network bridge already"),
        (("create", "host"), "cannot be used for a network"),
        (("create", "../x"), "cannot be used for a network"),
        (("create", "--subnet", "10.77.4.0/24", "x"), "overlaps with that of the network bridge, 10.77.0.0/16"),
        (("create", "--subnet", "10.202.0.9/16", "x"), "expected the first address of the subnet, 10.202.0.0/16"),
        (("create", "--mtu", "70000", "x"), "the MTU of a network is 576 to 65520 bytes"),
        (("inspect", "../x"), "there is no network ../x"),
        (("rm", "x"), "there is no network x"),
        (("rm", "bridge"), "bridge is always there"),
        (("rm", "../instances"), "there is no network ../instances"),
        (("prune",), ""),
    ],
)
def test_what_cannot_be_is_refused(empty_root, words, error):
    if words == ("prune",):
        networks.create("x")
        error = "prune has no terminal"
    assert error in refused("network", *words)


def test_a_damaged_record_hides_no_other_network(empty_root):
    networks.create("a")
    networks.create("b")
    for damage in ("", "{}", '{"subnet": "10.77.0.0/16", "bridge": 77}', '{"subnet": "../x", "bridge": 200}', "[1]"):
        with open(catalog.path("a"), "w", encoding="ascii") as file:
            file.write(damage)
        shown = vmctl("network", "ls")
        assert shown.code == 0
        assert "the record of the network a" in shown.err
        assert shown.out.splitlines()[-1].startswith("b ")
        assert "the record of the network a" in refused("network", "inspect", "a")
    ok("network", "rm", "a")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--network", "missing"), "there is no network missing"),
        (("--network", "bridge", "--network", "none"), "--network: none cannot be combined with anything"),
        (("--network", "a:what=1"), "--network: expected alias=NAME or ip=ADDRESS, got 'what=1'"),
        (("--network-alias", "a b"), "--network-alias: expected a name such as db"),
        (("--ip", "10.77.0.1"), "the address 10.77.0.1 is not one for instances of the network bridge"),
        (("--ip", "x"), "--ip: expected an IPv4 address"),
    ],
)
def test_nothing_starts_with_a_network_that_cannot_be(own_root, words, error):
    for mode in ("container", "vm"):
        assert error in refused("run", "--mode", mode, *words, "tiny", "--", "true")
    assert "needs a network namespace" in refused("run", "--mode", "host", "--network", "missing", "tiny", "--", "true")
    assert not os.path.exists(paths.instances_root())
