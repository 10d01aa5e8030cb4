"""Containers and guests of root and of an ordinary user find each other by name, in networks that the user has made."""

import json
import pathlib
import urllib.request
from contextlib import ExitStack, suppress

import pytest
from support.attacks import Cell, image
from support.commands import wait_for
from support.networks import host_view

pytestmark = pytest.mark.timeout(1200)

SERVE = "mkdir /w; echo {0} >/w/index.html; exec httpd -f -p 8000 -h /w"


class Service(Cell):
    """An instance with a web page that has its name."""

    def __init__(self, caller, mode, text, **keys):
        ready = {"tcp": 8000, "timeout": "300s"}
        super().__init__(caller, mode, command=["sh", "-c", SERVE.format(text)], ready=ready, **keys)

    def gets(self, name):
        """Return the page that it gets from a name; its network and its name server may have just begun."""
        return wait_for(lambda: self.shell(f"timeout 30 wget -qO- http://{name}:8000/").out.strip(), 300)


@pytest.fixture(scope="module")
def shop(caller):
    """A container in one network, a guest in two, and a container in the other one, in a state root of the caller."""
    view = host_view(pathlib.Path(caller.state))
    with ExitStack() as stack:
        for name in ("shop", "stock"):
            stack.callback(caller.vmctl, "network", "rm", name)
            assert caller.ok("network", "create", name) == f"{name}\n"

        def start(*words, **keys):
            service = Service(caller, *words, **keys)
            stack.callback(service.end)
            return service

        both = {"networks": ["shop", {"name": "stock", "aliases": ["store"]}], "aliases": ["database"]}
        db = start("vm", "guest", network=both)
        web = start("container", "web", network={"networks": ["shop"], "aliases": ["front"]})
        cellar = start("container", "cellar", network="stock")
        yield db, web, cellar
    assert caller.ok("network", "ls", "-q").split() == ["bridge"]
    assert host_view(pathlib.Path(caller.state)) == view


def test_each_finds_the_others_by_name_and_alias(shop):
    db, web, cellar = shop
    for name in (db.name, "database", "DATABASE"):
        assert web.gets(name) == "guest"
    for name in (web.name, "front"):
        assert db.gets(name) == "web"
    for name in ("store", "database"):
        assert cellar.gets(name) == "guest"
    assert db.gets(cellar.name) == "cellar"


def test_no_name_and_no_packet_passes_from_one_network_to_the_other(shop):
    _, web, cellar = shop
    assert web.shell(f"nslookup {cellar.name}; nslookup store").code != 0
    address = cellar.caller.inspect(cellar.name)["address"]
    assert web.shell(f"timeout 5 wget -qO- http://{address}:8000/").out == ""


def test_hosts_and_resolv_conf_name_the_instance_and_its_name_server(shop):
    db, web, _ = shop
    hosts = web.shell("cat /etc/hosts").out
    address = web.caller.inspect(web.name)["address"]
    assert f"{address}\t{web.name} front\n" in hosts
    assert web.shell("cat /etc/resolv.conf").out.splitlines()[0].startswith("nameserver ")
    hosts = db.shell("cat /etc/hosts").out
    assert f"\t{db.name} database\n" in hosts
    assert f"\t{db.name} store database\n" in hosts
    assert len(db.shell("cat /etc/resolv.conf").out.split("nameserver")) == 2


def test_a_guest_in_two_networks_has_two_interfaces_with_the_large_mtu(shop):
    links = {line.split()[1].rstrip(":"): line for line in shop[0].shell("ip -o link").out.splitlines()}
    assert {"lo", "eth0", "eth1"} <= set(links)
    assert "mtu 65520" in links["eth0"]
    assert "mtu 65520" in links["eth1"]
    assert shop[0].shell("ip route").out.count("default") == 1


def test_the_verbs_show_who_is_in_a_network_and_keep_it(caller, shop):
    db, web, cellar = shop
    (document,) = json.loads(caller.ok("network", "inspect", "shop"))
    members = {member["name"]: member for member in document["instances"]}
    assert set(members) == {db.name, web.name}
    assert members[web.name]["address"] == caller.inspect(web.name)["address"]
    assert members[web.name]["aliases"] == ["front"]
    rows = {row["name"]: row for row in json.loads(caller.ok("network", "ls", "--format", "json"))}
    assert rows["stock"]["instances"] == sorted((db.name, cellar.name))
    error = caller.refused("network", "rm", "shop")
    assert f"the network shop is used by {', '.join(sorted((db.name, web.name)))}" in error
    assert caller.ok("network", "prune", "-f") == ""


def test_a_container_started_again_is_known_again_by_its_name(caller, shop):
    _, web, cellar = shop
    caller.ok("restart", cellar.name)
    caller.ok("run", "--network", "stock", "tiny", "--", "wget", "-qO-", f"http://{cellar.name}:8000/")
    assert web.alive()


def test_every_port_that_the_image_exposes_is_published(caller):
    """By -P, at free ports of the host, besides those that -p gives."""
    image(caller, "exposing", config={"ExposedPorts": {"8000/tcp": {}, "8001-8002/udp": {}, "9000/tcp": {}}})
    serve = ("sh", "-c", SERVE.format("exposed"))
    try:
        assert "--publish-all" in caller.refused("run", "-P", "--network", "none", "exposing", "--", "true")
        caller.ok("run", "-d", "--name", "open", "-P", "-p", "127.0.0.2::9000", "exposing", "--", *serve)
        shown = dict(line.split(" -> ") for line in caller.ok("port", "open").splitlines())
        assert sorted(shown) == ["8000/tcp", "8001/udp", "8002/udp", "9000/tcp"]
        assert shown["9000/tcp"].startswith("127.0.0.2:")
        page = wait_for(lambda: caller_gets(f"http://{shown['8000/tcp']}/"), 120)
        assert page == b"exposed\n"
    finally:
        caller.vmctl("rm", "-f", "open")


def caller_gets(url):
    with suppress(OSError), urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()
    return b""


def _addresses(caller, name):
    return caller.ok("exec", name, "--", "ip", "-o", "-4", "addr")


def test_the_networks_of_an_instance_can_be_changed(caller):
    names = ("first", "second")
    for name in names:
        caller.ok("network", "create", name)
    try:
        serve = ("sh", "-c", SERVE.format("changed"))
        caller.ok("create", "--name", "moves", "--network", "first", "tiny", "--", *serve)
        caller.ok("network", "connect", "--alias", "there", "second", "moves")
        assert "in the network second already" in caller.refused("network", "connect", "second", "moves")
        assert "there is no network third" in caller.refused("network", "connect", "third", "moves")
        caller.ok("start", "moves")
        asked = ("sh", "-c", SERVE.format("asked"))
        caller.ok("run", "-d", "--name", "asks", "--network", "second", "tiny", "--", *asked)
        page = ("exec", "asks", "--", "timeout", "30", "wget", "-qO-", "http://there:8000/")
        assert wait_for(lambda: caller.vmctl(*page).out, 300) == "changed\n"
        both = caller.inspect("moves")["networks"]
        for verb in ("connect", "disconnect"):
            assert "`vmctl stop moves`" in caller.refused("network", verb, "first", "moves")
        caller.ok("network", "connect", "--alias", "late", "first", "asks")
        late = ("exec", "moves", "--", "timeout", "30", "wget", "-qO-", "http://late:8000/")
        assert wait_for(lambda: caller.vmctl(*late).out, 300) == "asked\n"
        assert f"eth1    inet {caller.inspect('asks')['networks']['first']}/" in _addresses(caller, "asks")
        assert "connected last" in caller.refused("network", "disconnect", "second", "asks")
        caller.ok("network", "disconnect", "first", "asks")
        assert "eth1" not in _addresses(caller, "asks")
        caller.ok("stop", "-t", "0", "moves")
        caller.ok("network", "disconnect", "first", "moves")
        assert "is not in the network first" in caller.refused("network", "disconnect", "first", "moves")
        caller.ok("network", "rm", "first")
        caller.ok("start", "moves")
        assert caller.inspect("moves")["networks"] == {"second": both["second"]}
        assert wait_for(lambda: caller.vmctl(*page).out, 300) == "changed\n"
        shown = _addresses(caller, "moves")
        assert f"eth0    inet {both['second']}/" in shown
        assert "eth1" not in shown
    finally:
        caller.vmctl("rm", "-f", "moves", "asks")
        caller.vmctl("network", "rm", *names)
