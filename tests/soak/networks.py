"""`python -m soak.networks`: what a network costs: the start of a container, the throughput, and names.

Prints the time that a network with a name and a published port adds to a start, the throughput from container to
container and that of a bridge and cables made by hand, throughput and round trip of a published port and of
docker-proxy in front of the same bridge by hand (if it is given or installed), all in the same rounds, the throughput
of the way out, and how long after `up` a name is known.
Exit code 1 if one of them is beyond its limit. On a busy host read the ratios.
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time

from support.commands import VMCTL, free_port, inspect
from support.internet import FAR, Internet
from support.names import NO_ERROR, ask
from support.roots import separate_root

from soak import left
from vmctl import paths
from vmctl.linux import syscalls
from vmctl.programs import run
from vmctl.which import which

ADDED_S, RATIO, KNOWN_S = 0.008, 0.9, 0.1
NETWORK = f"{left.PREFIX}net"
CHUNK, SEND_S, ECHOES, SERVER_PORT = 1 << 20, 1.0, 500, 5201
BY_HAND = ("192.0.2.1", "192.0.2.2")


def main():
    parser = argparse.ArgumentParser(prog="networks")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--docker-proxy", default=which("docker-proxy"), metavar="FILE", help="to compare with")
    args = parser.parse_args()
    with separate_root("images") as root:
        try:
            _vmctl("network", "create", NETWORK)
            few = max(3, args.rounds // 5)
            results = [_starts(args.rounds), _throughput(few), _published(few, args.docker_proxy), _names(args.rounds)]
            _way_out(few)
        finally:
            for name in os.listdir(paths.instances_root()):
                subprocess.run([VMCTL, "rm", "-f", name], capture_output=True)
            subprocess.run([VMCTL, "network", "rm", NETWORK], capture_output=True)
        found = left.left(root)
        print(f"{len(found)} objects left")
        return int(bool(found) or not all(results))


def _vmctl(*words):
    begin_s = time.monotonic()
    subprocess.run([VMCTL, *words], check=True, capture_output=True)
    return time.monotonic() - begin_s


def _up(name, *flags):
    return _vmctl("run", "-d", "--name", f"{left.PREFIX}{name}", *flags, "tiny", "--", "sleep", "100000")


def _starts(rounds):
    """Compare starts without a network with those in it, alternately; the first one of the network is shown, too."""
    first_s, _ = _up("first", "--network", NETWORK), _up("none", "--network", "none")
    without, within = [], []
    for number in range(rounds):
        port = f"{free_port()}:8000"
        without.append(_up(f"without{number}", "--network", "none"))
        within.append(_up(f"within{number}", "--network", NETWORK, "--network-alias", f"a{number}", "-p", port))
        for name in ("without", "within"):
            _vmctl("rm", "-f", f"{left.PREFIX}{name}{number}")
    added = [one - other for one, other in zip(within, without, strict=True)]
    added_s, base_s = statistics.median(added), statistics.median(without)
    print(f"start: {base_s * 1000:.1f} ms without a network; name and port add {added_s * 1000:.1f} ms", end="")
    print(f" (asked: {ADDED_S * 1000:.0f}); the first one of the network takes {first_s * 1000:.1f} ms")
    return added_s <= ADDED_S


def _throughput(rounds):
    """Compare the throughput between two containers with that between two namespaces, alternately."""
    _up("server", "--network", NETWORK)
    client, server = (inspect(f"{left.PREFIX}{name}") for name in ("first", "server"))
    with _by_hand() as (near, far):
        pairs = {
            "vmctl": (f"/proc/{client['pid']}/ns/net", f"/proc/{server['pid']}/ns/net", server["address"]),
            "hand": (near, far, BY_HAND[1]),
        }
        rates = {kind: [] for kind in pairs}
        for _ in range(rounds):
            for kind, pair in pairs.items():
                rates[kind].append(_rate(*pair))
    ours, hand = (statistics.median(rates[kind]) for kind in ("vmctl", "hand"))
    print(f"throughput: {ours / 1e9:.1f} Gbit/s, by hand {hand / 1e9:.1f}, ratio {ours / hand:.2f} (asked: {RATIO})")
    return ours / hand >= RATIO


def _published(rounds, proxy):
    """Compare throughput and round trip of a published port with those of docker-proxy, alternately."""
    port, here = free_port(), "/proc/self/ns/net"
    _up("published", "--network", NETWORK, "-p", f"{port}:{SERVER_PORT}")
    inside = f"/proc/{inspect(f'{left.PREFIX}published')['pid']}/ns/net"
    with _by_hand() as (_, far), _docker_proxy(proxy) as place:
        ways = {"vmctl": (here, inside, "127.0.0.1", port)}
        if place:
            ways["docker-proxy"] = (place, far, "127.0.0.1", SERVER_PORT)
        rates, trips = ({kind: [] for kind in ways} for _ in range(2))
        for _ in range(rounds):
            for kind, way in ways.items():
                rates[kind].append(_rate(*way))
                trips[kind].append(_rate(*way, send=_echoes, receive=_answer))
    found = {kind: (statistics.median(rates[kind]), statistics.median(trips[kind])) for kind in ways}
    for kind, (rate, trip_s) in found.items():
        print(f"published port, {kind}: {rate / 1e9:.1f} Gbit/s, round trip {trip_s * 1e6:.0f} us")
    ours, theirs = found["vmctl"], found.get("docker-proxy", (0, float("inf")))
    return ours[0] >= theirs[0] and ours[1] <= theirs[1]


@contextlib.contextmanager
def _docker_proxy(program):
    """Yield the network namespace in which docker-proxy listens, the one with the bridge by hand; None without it."""
    if not program:
        print("published port: docker-proxy is not installed (package docker.io), so nothing is compared")
        yield None
        return
    switch = f"{left.PREFIX}switch-{os.getpid()}"
    run(["ip", "-n", switch, "link", "set", "lo", "up"])
    run(["ip", "-n", switch, "address", "add", "192.0.2.254/24", "dev", "br0"])
    words = ["-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", str(SERVER_PORT)]
    words += ["-container-ip", BY_HAND[1], "-container-port", str(SERVER_PORT)]
    # it reports on descriptor 3
    command = ["sh", "-c", 'exec 3>/dev/null; exec "$@"', "sh", "ip", "netns", "exec", switch, program, *words]
    process = subprocess.Popen(command)
    try:
        time.sleep(1)
        assert process.poll() is None, "docker-proxy has ended"
        yield f"/run/netns/{switch}"
    finally:
        process.kill()
        process.wait()


def _way_out(rounds):
    """Measure the throughput to a host outside, which is a network namespace here."""
    name = f"{left.PREFIX}out"
    with Internet() as internet, separate_root("images"):
        try:
            words = [VMCTL, "run", "-d", "--name", name, "tiny", "--", "sleep", "100000"]
            subprocess.run(internet.host.enter(*words), check=True, capture_output=True)
            near = f"/proc/{inspect(name)['pid']}/ns/net"
            rates = [_rate(near, f"/proc/{internet.far.pid}/ns/net", FAR) for _ in range(rounds)]
            print(f"way out: {statistics.median(rates) / 1e9:.1f} Gbit/s")
        finally:
            subprocess.run([VMCTL, "rm", "-f", name], capture_output=True)


def _rate(near, far, address, port=SERVER_PORT, send=None, receive=None):
    """Return what `send` in one network namespace measures with `receive` in another: bits per second by default."""
    send, receive = send or _send, receive or _receive
    ready, wait = os.pipe()[::-1], os.pipe()
    receiver = _in_namespace(far, lambda: receive(ready[0]))
    os.close(ready[0])
    try:
        assert os.read(ready[1], 1)
        sender = _in_namespace(near, lambda: send(address, port, wait[1]))
        os.close(wait[1])
        with os.fdopen(wait[0], encoding="ascii") as answer:
            rate = float(answer.read())
        os.waitpid(sender, 0)
        return rate
    finally:
        os.kill(receiver, signal.SIGKILL)
        os.waitpid(receiver, 0)
        os.close(ready[1])


def _in_namespace(path, work):
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.setns(os.open(path, os.O_RDONLY), syscalls.CLONE_NEWNET)
            work()
        finally:
            os._exit(0)
    return pid


def _receive(ready):
    with socket.create_server(("0.0.0.0", SERVER_PORT)) as server:
        os.write(ready, b"r")
        connection, _ = server.accept()
        buffer = bytearray(CHUNK)
        while connection.recv_into(buffer):
            pass
        connection.close()


def _answer(ready):
    with socket.create_server(("0.0.0.0", SERVER_PORT)) as server:
        os.write(ready, b"r")
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(1):
            connection.send(data)
        connection.close()


def _echoes(address, port, answer):
    with socket.create_connection((address, port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times_s = []
        for _ in range(ECHOES):
            begin_s = time.monotonic()
            connection.send(b"x")
            assert connection.recv(1)
            times_s.append(time.monotonic() - begin_s)
        os.write(answer, f"{statistics.median(times_s)}".encode())


def _send(address, port, answer):
    with socket.create_connection((address, port), timeout=60) as connection:
        chunk, sent, begin_s = bytes(CHUNK), 0, time.monotonic()
        while (passed_s := time.monotonic() - begin_s) < SEND_S:
            sent += connection.send(chunk)
        os.write(answer, f"{sent * 8 / passed_s}".encode())


@contextlib.contextmanager
def _by_hand():
    """Two network namespaces with cables to a bridge in a third one, all with the MTU of vmctl's networks."""
    names = [f"{left.PREFIX}{name}-{os.getpid()}" for name in ("near", "far", "switch")]
    near, far, switch = names
    try:
        for name in names:
            run(["ip", "netns", "add", name])
        run(["ip", "-n", switch, "link", "add", "br0", "mtu", "65520", "up", "type", "bridge"])
        for number, name in enumerate((near, far)):
            cable = ["type", "veth", "peer", "name", "eth0", "mtu", "65520", "netns", name]
            run(["ip", "-n", switch, "link", "add", f"v{number}", "mtu", "65520", *cable])
            run(["ip", "-n", switch, "link", "set", f"v{number}", "master", "br0", "up"])
            run(["ip", "-n", name, "link", "set", "eth0", "up"])
            run(["ip", "-n", name, "address", "add", f"{BY_HAND[number]}/24", "dev", "eth0"])
        yield f"/run/netns/{near}", f"/run/netns/{far}"
    finally:
        for name in names:
            run(["ip", "netns", "delete", name], check=False)


def _names(rounds):
    """Measure how long after `up` has returned a neighbour's question about the name is answered."""
    neighbour = f"/proc/{inspect(f'{left.PREFIX}first')['pid']}/ns/net"
    gateway = "".join(inspect(f"{left.PREFIX}first")["address"].rpartition(".")[:2]) + "1"
    times_s = []
    for number in range(rounds):
        name = f"{left.PREFIX}known{number}"
        _up(f"known{number}", "--network", NETWORK)
        here, there = os.pipe()
        begin_s = time.monotonic()
        pid = _in_namespace(
            neighbour, lambda name=name, begin_s=begin_s, there=there: _until_known(gateway, name, begin_s, there)
        )
        os.close(there)
        with os.fdopen(here, encoding="ascii") as answer:
            times_s.append(float(answer.read()))
        os.waitpid(pid, 0)
        _vmctl("rm", "-f", name)
    print(
        f"names: known {statistics.median(times_s) * 1000:.1f} ms after `up`, at most {max(times_s) * 1000:.1f}", end=""
    )
    print(f" (asked: {KNOWN_S * 1000:.0f})")
    return statistics.median(times_s) <= KNOWN_S


def _until_known(gateway, name, begin_s, answer):
    while ask(gateway, name)[0] != NO_ERROR:
        pass
    os.write(answer, f"{time.monotonic() - begin_s}".encode())


if __name__ == "__main__":
    sys.exit(main())
