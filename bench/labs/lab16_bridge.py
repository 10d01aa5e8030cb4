"""Lab 16: how neighbours reach each other."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, text

_MODES = ("container", "vm")
_SERVE = "echo hello >/tmp/index.html; echo up; exec httpd -f -p 8000 -h /tmp"
# an interface whose peer has another index is one end of a cable, a veth (sysfs-class-net, iflink)
_LINK = """cd /sys/class/net/eth0
test $(cat iflink) = $(cat ifindex) && echo own || echo cable
basename $(readlink device/driver)"""

_ASK = "for n in $(seq 60); do timeout 10 wget -qO- http://{}:8000/ && break; sleep 1; done"


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for mode in _MODES:
        server, client = place.start(mode, _SERVE), place.start(mode)
        link = place.exec(client, _LINK).split()
        seen[f"{mode}: link"] = " ".join(link[:2] if link[0] == "own" else link[:1])
        seen[f"{mode}: page of its neighbour, by name"] = place.exec(client, _ASK.format(server)).split("\n")[0]
    script = "sed -n 's/^ *\\([^:]*\\):.*/\\1/p' /proc/self/net/dev | sort | tr '\\n' ' '"
    for network in ("host", "bridge"):
        seen[f"container, network {network}: links"] = place.ask("container", script, network=network)[0].split("\n")[0]
    seen["host: links"] = place.ask("host", script)[0].split("\n")[0]
    return seen


def _decide(seen: Evidence) -> Verdict:
    pages = [f"{mode}: page of its neighbour, by name" for mode in _MODES]
    links = ("container: link", "vm: link", "container, network host: links", "host: links")
    if unknown := missing(seen, *pages, *links):
        return unknown
    heard = [text(seen, name) == "hello" for name in pages]
    cable, own = text(seen, links[0]) == "cable", text(seen, links[1]).startswith("own")
    shared = text(seen, links[2]) == text(seen, links[3]) != text(seen, "container, network bridge: links")
    word = HOLDS if all((*heard, cable, own, shared)) else REFUTED
    return Verdict(
        word,
        f"neighbours answer by name: {heard[0]} and {heard[1]}; one end of a cable in the container: {cable}; "
        f"a device in the guest: {own}; with network host the links are the host's: {shared}",
    )


LAB = Lab(
    number=16,
    name="bridge",
    claim="Containers talk over a bridge by pairs of virtual Ethernet links; the host's network can be shared, too.",
    why="On its path a packet can be filtered, counted and lost: first of all you have to know the path.",
    steps=(
        "start a web server and a client in each mode, and fetch a page by the name of the server's instance",
        "look in /sys/class/net whether eth0 is one end of a pair (container) or a device of a driver (guest)",
        "list the links in a container with `network: host`, and on the host",
    ),
    rule="holds if all neighbours answer, eth0 is a pair in the container and a device in the guest, and with the "
    "host's network a container has its links",
    modes=("host", *_MODES),
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl network create a, and one instance in it: can it reach the others?",
        "nsenter --net=/run/vmctl/net/switch ip -br link, as root: the other ends",
        "tcpdump on the bridge while one pings the other",
    ),
)
