"""A container in the network namespace of another one: `network: container:NAME`, and `network_mode` of a stack."""

import json
import os

import pytest
from support.commands import ok, refused, vmctl

from vmctl.stacks import loading
from vmctl.stacks.stack import Source

SERVER = ("httpd", "-f", "-p", "80", "-h", "/etc")
WAIT = ("sh", "-c", "while :; do sleep 1; done")
pytestmark = pytest.mark.timeout(600)

STACK = """
services:
  third: {image: tiny, network_mode: "service:side", command: sleep 3600}
  side:
    image: tiny
    network_mode: service:app
    command: [httpd, -f, -p, "80", -h, /etc]
    ready: {http: "80/hostname"}
  app: {image: tiny, command: [sh, -c, "while :; do sleep 1; done"], environment: {A: "%s"}}
"""


@pytest.fixture
def first(caller):
    caller.ok("run", "-d", "--name", "first", "tiny", "--", *WAIT)
    yield "first"
    caller.vmctl("rm", "-f", "first", "second")


def namespace(caller, name):
    return caller.inspect(name)["receipt"]["namespaces"]["net"]


def shell(caller, name, script):
    return caller.ok("exec", name, "--", "sh", "-c", script)


def test_it_shares_interfaces_ports_and_names_and_cannot_change_them(caller, first):
    spec = f"image: tiny\ncommand: {json.dumps(SERVER)}\nnetwork: container:first\nready: {{http: 80/hostname}}\n"
    caller.ok("up", "-q", "--mode", "container", caller.write("second.yaml", spec))
    assert shell(caller, first, "wget -qO- http://localhost/hostname") == "second\n"
    for script in ("ip -o -4 addr", "cat /etc/hosts /etc/resolv.conf", "readlink /proc/self/ns/net"):
        assert shell(caller, "second", script) == shell(caller, first, script) != ""
    assert shell(caller, "second", "hostname") == "second\n"
    assert namespace(caller, "second") == namespace(caller, first)
    assert caller.inspect("second")["address"] == caller.inspect(first)["address"] is not None
    for change in ("ip link set eth0 down", "ip route del default", "ip addr add 10.9.9.9/8 dev lo"):
        result = caller.vmctl("exec", "second", "--", "sh", "-c", change)
        assert result.code != 0, result
        assert "not permitted" in result.err, result
    assert "connect first instead" in caller.refused("network", "connect", "bridge", "second")
    assert caller.vmctl("run", "--network", "container:second", "tiny", "--", "sh", "-c", "exit 3").code == 3
    caller.ok("stop", "-t", "0", first)
    assert shell(caller, "second", "wget -qO- http://localhost/hostname") == "second\n"
    assert "first is exited" in caller.refused("restart", "-t", "0", "second")
    caller.ok("start", "-q", first)
    caller.ok("start", "-q", "second")
    assert namespace(caller, "second") == namespace(caller, first)


def test_what_is_refused(caller, first):
    beside = ("run", "--network", "container:first")
    for words, text in (
        (("run", "--network", "container:none", "tiny"), "there is no instance none"),
        (("run", "--network", "container:me", "--name", "me", "tiny"), "the name of another instance"),
        ((*beside, "-P", "-p", "80", "tiny"), "decided by first"),
        ((*beside, "--hostname", "x", "tiny"), "decided by first"),
        ((*beside, "--add-host", "a:192.0.2.1", "tiny"), "decided by first"),
        ((*beside, "--sysctl", "net.core.somaxconn=9", "tiny"), "net.core.somaxconn"),
        ((*beside, "--network", "bridge", "tiny"), "cannot be combined"),
        ((*beside, "--ip", "10.77.0.9", "tiny"), "cannot be combined"),
        ((*beside, "--mode", "vm", "tiny"), "a guest has its own kernel"),
        ((*beside, "--mode", "host", "tiny"), "needs a network namespace"),
    ):
        assert text in caller.refused(*words)
    caller.ok("run", "-d", "--mode", "host", "--name", "second", "tiny", "--", "sleep", "3600")
    assert "second has the host's network" in caller.refused("run", "--network", "container:second", "tiny")
    assert caller.ok("ps", "-aq").split() == ["first", "second"]


def test_hosts_of_a_hostile_neighbour_are_read_in_its_root_only(caller, tmp_path):
    """They are a link to a file of the host, and a pipe."""
    secret = caller.write("secret", "of the host")
    etc = os.path.join(caller.folder, "etc")
    os.mkdir(etc)
    os.symlink(secret, f"{etc}/hosts")
    os.mkfifo(f"{etc}/resolv.conf")
    caller.ok("run", "-d", "--name", "first", "-v", f"{etc}:/etc:ro", "tiny", "--", *WAIT)
    out = caller.ok("run", "--network", "container:first", "tiny", "--", "cat", "/etc/hosts", "/etc/resolv.conf")
    caller.ok("rm", "-f", "first")
    assert "of the host" not in out
    assert "127.0.0.1" in out


def load(tmp_path, text, name="pod"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: {name}\n{text}")
    return loading.load(Source((str(path),)))


def test_a_service_starts_after_the_one_whose_network_it_shares(tmp_path):
    stack = load(tmp_path, STACK % 1)
    assert stack.services["side"].work.network == "container:pod-app"
    assert stack.services["third"].work.network == "container:pod-side"
    depends = stack.services["side"].depends["app"]
    assert (depends.condition, depends.required, depends.restart) == ("started", True, True)
    stack = load(tmp_path, "services:\n  a: {image: tiny, network_mode: 'container:x'}\n")
    assert stack.services["a"].work.network == "container:x"
    assert stack.services["a"].depends == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a: {image: tiny, network_mode: 'service:b'}", "there is no other service b"),
        ("  a: {image: tiny, network_mode: 'service:a'}", "there is no other service a"),
        ("  a: {image: tiny, network_mode: 'service:'}", "network_mode"),
        (
            "  a: {image: tiny, network_mode: 'service:b'}\n  b: {image: tiny, network_mode: 'service:a'}",
            "wait for each other",
        ),
        ("  a: {image: tiny, network_mode: 'service:b', ports: ['80']}\n  b: {image: tiny}", "ports"),
    ],
)
def test_stacks_that_are_refused(tmp_path, text, expected):
    with pytest.raises(Exception, match=expected) as caught:
        load(tmp_path, f"services:\n{text}\n")
    assert "pod.yaml:" in str(caught.value)


def test_a_stack_with_services_in_one_network(own_root, tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text(f"name: pod\n{STACK % 1}")
    ok("up", str(path))
    assert ok("exec", "pod-third", "--", "wget", "-qO-", "http://localhost/hostname") == "pod-side\n"
    path.write_text(f"name: pod\n{STACK % 2}")
    shown = vmctl("up", str(path)).err
    assert "pod-app: replaced: env" in shown
    assert "pod-side: replaced: network of pod-app" in shown
    assert "pod-third: replaced: network of pod-side" in shown
    assert ok("exec", "pod-third", "--", "wget", "-qO-", "http://localhost/hostname") == "pod-side\n"
    for service, text in (("app", "is in the network of app"), ("third", "a guest has its own kernel")):
        assert text in refused("up", "--mode-of", f"{service}=vm", str(path))
    ok("down", "pod")
    assert ok("ps", "-aq") == ""
