"""Lab 15: two servers, one port."""

from __future__ import annotations

import socket

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Verdict, missing, text

_MODES = ("host", "container", "vm")
_PORTS = (4000, *range(4001, 4100, 7))
_NAMES = ("first", "second")


def _gather(place: Place) -> Evidence:
    port = _free_port(place.parameter("port"))
    seen = {"port": str(port)}
    script = f"httpd -p {port} -h /tmp && echo listening"
    for mode in _MODES:
        for name, answer in zip(_NAMES, place.ask(mode, script, script), strict=True):
            seen[f"{mode}: {name}"] = answer.replace("\n", "; ")
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{mode}: {name}" for mode in _MODES for name in _NAMES)):
        return unknown
    heard = {mode: sum(text(seen, f"{mode}: {name}").startswith("listening") for name in _NAMES) for mode in _MODES}
    if heard == {"host": 1, "container": 2, "vm": 2}:
        return Verdict(HOLDS, f"port {seen.get('port')}: both listen in containers and in guests, one only on the host")
    return Verdict(
        REFUTED, f"listening: {', '.join(f'{number} of 2 in mode {mode}' for mode, number in heard.items())}"
    )


def _free_port(wanted: int) -> int:
    """Return the port of the claim, or another one if a program of this machine has that."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    return wanted


LAB = Lab(
    number=15,
    name="same-port",
    claim=f"Two instances can both listen on port {_PORTS[0]}; two processes of the host cannot.",
    why="Without own ports each service needs another number, and every configuration knows all of them.",
    steps=(
        "start two instances of each mode",
        f"start a web server on the same port in each ({_PORTS[0]}, or what the seed draws, or a free one)",
    ),
    rule="holds if both servers listen in containers and in guests, and exactly one in mode host",
    modes=_MODES,
    parameters={"port": _PORTS},
    gather=_gather,
    decide=_decide,
    next=(
        "publish the same port of two instances on the host: -p 8080:4000 twice. Who refuses?",
        "vmctl run --network host twice: is a container without its network namespace like the host?",
        "ls -i /proc/PID/ns/net of both containers on the host",
    ),
)
