"""What a workload must fulfil, whether it comes from a file, from flags or from the configuration of an image."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from vmctl.errors import SpecError
from vmctl.light import re
from vmctl.named import TYPE_CHECKING
from vmctl.spec import userid
from vmctl.spec.units import exact_size
from vmctl.spec.workload import NetworkOptions, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    Wrong = tuple[str, str, str]  # key, what was expected of it, hint

_LEAST_LOG_BYTES = 128 << 10  # each part is larger than one write of the supervisor
_MOST_BYTES = 1 << 62
BESIDE = "container:"  # the network namespace of another container
MOST_PORTS = 1024  # each takes two sockets and a place in the descriptors of the forwarder
_OF_KERNEL = ("proc", "sys", "dev")  # folders of the root that vmctl sets up
_MOST_SECONDS = 10 * 365 * 86400  # as in a duration


def is_name(text: str) -> bool:
    """Return whether a text has the form of an instance's name."""
    letters = text.replace("_", "").replace(".", "").replace("-", "")
    return len(text) <= 63 and text[:1].isalnum() and letters.isalnum() and letters.isascii()


def is_alias(text: str) -> bool:
    """Return whether a text can be a name by which others find an instance: one of DNS, neither address nor localhost.

    A resolver takes texts such as 10.1 and 0x7f.1 for addresses, as inet_aton(3) does.
    """
    from _socket import inet_aton

    try:
        inet_aton(text)
    except (OSError, UnicodeError, ValueError):
        return is_name(text) and text[-1] != "." and ".." not in text and text.lower() != "localhost"
    return False


def is_variable(text: str) -> bool:
    """Return whether a text can be the name of a variable: letters, digits and `_`, not beginning with a digit."""
    return text.isascii() and text.isidentifier()


def check_name(name: str) -> None:
    """Raise SpecError if `name` cannot be used for an instance: it becomes a folder, a cgroup and a host name."""
    if not is_name(name):
        raise SpecError(
            f"the name {name!r} cannot be used",
            hint="use up to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
        )


HOST_GATEWAY = "host-gateway"  # in the place of an address of `extra_hosts`: this host


def names_of_host(work: Workload) -> tuple[str, ...]:
    """Return the names by which an instance reaches this host."""
    return tuple(text.rpartition(":")[0] for text in work.extra_hosts if text.endswith(f":{HOST_GATEWAY}"))


def lookups(work: Workload) -> NetworkOptions | None:
    """Return the options of the networks if one of them is about name servers."""
    options = work.network
    if isinstance(options, str) or not (options.dns or options.dns_search or options.dns_opt):
        return None
    return options


def key(path: str) -> str:
    """Return how errors call a key of a workload file."""
    return f"the key {path}"


def check(work: Workload, called: Callable[[str], str] = key) -> None:
    """Raise SpecError if a value cannot be used; `called` returns how the error calls a key: by its flag, if any."""
    check_name(work.name)
    userid.check(work.user)
    for rule in (
        *(_hostname, _tmpfs, _ulimits, _command, _env, _labels, _paths, _volumes, _numbers, _ready),
        *(_network, _ports),
    ):
        for path, text, hint in rule(work):
            raise SpecError(f"{called(path)}: {text}", hint=hint)
    if work.health or work.secrets or work.env_file:
        from vmctl.spec import keeping

        for path, text, hint in keeping.wrong(work):
            raise SpecError(f"{called(path)}: {text}", hint=hint)
    if work.sysctls or work.extra_hosts or work.devices:
        from vmctl.spec import inside

        for path, text, hint in inside.wrong(work):
            raise SpecError(f"{called(path)}: {text}", hint=hint)
    check_texts(
        (*(work.entrypoint or ()), *(work.command or ()), *work.env.values(), work.user or "", *_all_paths(work))
    )


def check_texts(texts: Iterable[str]) -> None:
    """Raise SpecError if one of the texts of a process cannot be passed to the kernel."""
    if any("\0" in text for text in texts):
        raise SpecError("a text contains a NUL character, which is not possible in a command, variable or path")


def _all_paths(work: Workload) -> Iterator[str]:
    yield work.workdir or ""
    yield from (file.path for file in work.files)
    for volume in work.volumes:
        yield from (volume.source, volume.target)


def _command(work: Workload) -> Iterator[Wrong]:
    if work.command is not None and (not work.command or not work.command[0]):
        yield "command", "expected a program, got an empty list", "leave it out to run the image's command"
    if work.entrypoint and not work.entrypoint[0]:
        yield "entrypoint", "expected a program, got an empty text", "[] means: no entrypoint"


def _env(work: Workload) -> Iterator[Wrong]:
    for name in work.env:
        if not is_variable(name):
            yield "env", f"{name!r} cannot be the name of a variable", "use only letters, digits and '_'"


def _labels(work: Workload) -> Iterator[Wrong]:
    for name, text in work.labels.items():
        if not name or "\0" in name + text:
            yield "labels", f"expected a name, got {name!r}", ""


def _paths(work: Workload) -> Iterator[Wrong]:
    files = [(f"files[{i}].path", file.path) for i, file in enumerate(work.files)]
    for where, path in (*files, *([("workdir", work.workdir)] if work.workdir is not None else [])):
        if not is_plain(path):
            yield where, f"expected an absolute path without .., got {path!r}", ""
    for i, file in enumerate(work.files):
        given = [name for name in ("content", "base64", "source") if getattr(file, name)]
        if len(given) > 1:
            yield f"files[{i}]", f"expected one of content, base64, source, got {', '.join(given)}", ""
        if file.base64 is not None and not _is_base64(file.base64):
            yield f"files[{i}].base64", "expected base64 (RFC 4648)", "`base64 FILE` makes it"
    seen: set[str] = set()
    for where, path in files:
        if path.endswith("/"):
            yield where, f"expected a file, got the folder {path}", ""
        if place_of(path) in seen:
            yield where, f"{path} is given twice", ""
        seen.add(place_of(path))


def _is_base64(text: str) -> bool:
    from binascii import Error, a2b_base64

    try:
        a2b_base64("".join(text.split()), strict_mode=True)
    except (Error, ValueError):
        return False
    return True


def is_plain(path: str) -> bool:
    """Return whether a path of an instance is absolute, without `..` and line ends."""
    return path.startswith("/") and ".." not in path.split("/") and "\n" not in path


def place_of(path: str) -> str:
    """Return a path of an instance in its shortest form."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _volumes(work: Workload) -> Iterator[Wrong]:
    seen: set[str] = set()
    for i, volume in enumerate(work.volumes):
        place = place_of(volume.target)
        try:
            check_volume_target(volume.target)
        except ValueError as error:
            yield f"volumes[{i}]", str(error), "use a folder such as /data"
        if place in seen:
            yield f"volumes[{i}]", f"the place {place} is given twice", "only the last volume would be seen there"
        seen.add(place)


def check_volume_target(path: str) -> None:
    """Raise ValueError if no volume can be mounted at `path` of an instance: of a workload, or VOLUME of an image."""
    if not is_plain(path):
        raise ValueError(f"the target of a volume has to be an absolute path without .., not {path!r}")
    if place_of(path) == "/":
        raise ValueError("a volume cannot be the whole root of the instance, /")
    first, *below = place_of(path).split("/")[1:]
    if first in _OF_KERNEL and (first, *below[:1]) != ("dev", "shm"):
        raise ValueError(f"{path} is a place of the kernel, which vmctl sets up")


def _hostname(work: Workload) -> Iterator[Wrong]:
    if work.hostname is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", work.hostname):
        yield "hostname", f"expected up to 63 letters, digits, '-' and '.', got {work.hostname!r}", ""


def _tmpfs(work: Workload) -> Iterator[Wrong]:
    seen = {place_of(volume.target) for volume in work.volumes}
    for i, one in enumerate(work.tmpfs):
        where, place = f"tmpfs[{i}]", place_of(one.target)
        if not is_plain(one.target):
            yield where, f"expected an absolute path without .., got {one.target!r}", ""
        if place == "/" or place.split("/")[1] in _OF_KERNEL:
            hint = "use a folder such as /run; `shm_size` is /dev/shm"
            yield where, f"{one.target} cannot be a folder in memory", hint
        if place in seen:
            yield where, f"the place {place} is given twice", "only the last one would be seen there"
        seen.add(place)


def _ulimits(work: Workload) -> Iterator[Wrong]:
    names = [one.name for one in work.ulimits]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "ulimits", f"{name} is given twice", ""


def _numbers(work: Workload) -> Iterator[Wrong]:
    limits = work.resources
    for name, value, least, most in (
        ("resources.cpus", limits.cpus, 0.01, 8192),  # the most that Linux can be built for (CONFIG_NR_CPUS)
        ("resources.pids", limits.pids, 1, 1 << 22),  # PID_MAX_LIMIT
    ):
        if value is not None:
            yield from _between(name, value, least, most, _number)
    if work.stop_timeout_s is not None:
        yield from _between("stop_timeout", work.stop_timeout_s, 0, _MOST_SECONDS, lambda seconds: f"{seconds:g}s")
    for name, size, least_bytes in (
        ("resources.memory", limits.memory_bytes, 1 << 20),
        ("resources.disk", limits.disk_bytes, 1 << 20),
        ("shm_size", work.shm_size_bytes, 1 << 12),
        *((f"tmpfs[{i}]", one.size_bytes, 1 << 12) for i, one in enumerate(work.tmpfs)),
        ("logs.size", work.logs.size_bytes, _LEAST_LOG_BYTES),
    ):
        if size is not None:
            yield from _between(name, size, least_bytes, _MOST_BYTES, exact_size)


def _number(value: float) -> str:
    return f"{value:.12g}" if abs(value) < 1e300 else "a number of more than 300 digits"


def _between(name: str, value: float, least: float, most: float, shown: Callable[[float], str]) -> Iterator[Wrong]:
    if value != value:
        yield name, "expected a number, got nan", ""
    elif not least <= value <= most:
        kind, bound = ("least", least) if value < least else ("most", most)
        yield name, f"expected at {kind} {shown(bound)}, got {shown(value)}", ""


def _ready(work: Workload) -> Iterator[Wrong]:
    if work.ready is None:
        return
    probes = work.ready.probes()
    if len(probes) > 1:
        yield "ready", f"expected one of http, tcp, log, exec, got {', '.join(probes)}", ""
    if not work.ready.timeout_s > 0:
        yield "ready.timeout", "expected a time, got none", ""
    if work.ready.exec is not None and not any(work.ready.exec[:1]):
        yield "ready.exec", "expected a program, got an empty list", ""
    if work.ready.log is not None:
        try:
            re.compile(work.ready.log)
        except re.error as error:
            yield "ready.log", f"{work.ready.log!r} is not a regular expression: {error}", ""
    if work.ready.tcp is not None and not 0 < work.ready.tcp < 65536:
        yield "ready.tcp", f"expected a port, got {work.ready.tcp}", ""


def neighbour(work: Workload) -> str:
    """Return the name of the container whose network namespace a workload shares; "" if it has another network."""
    network = work.network
    return network.removeprefix(BESIDE) if isinstance(network, str) and network.startswith(BESIDE) else ""


def _beside(work: Workload, name: str) -> Iterator[Wrong]:
    if not is_name(name) or name == work.name:
        yield "network", f"expected {BESIDE}NAME with the name of another instance, got {name[:80]!r}", ""
    for key, value in (("ports", work.ports), ("hostname", work.hostname), ("extra_hosts", work.extra_hosts)):
        if value:
            yield key, f"with {BESIDE}{name[:80]} this is decided by {name[:80]}, whose network it shares", ""


def _network(work: Workload) -> Iterator[Wrong]:
    if name := neighbour(work):
        yield from _beside(work, name)
        return
    if isinstance(work.network, str):
        if not is_name(work.network):
            expected = f"expected bridge, none, host or the name of a network, got {work.network[:80]!r}"
            yield "network", expected, "`vmctl network ls` lists them"
        return
    from vmctl.spec import networking

    yield from networking.wrong(work.network)


def _ports(work: Workload) -> Iterator[Wrong]:
    if work.network == "none" and (work.ports or (work.ready and (work.ready.http or work.ready.tcp))):
        yield "network", "with none, ports and probes by http or tcp are not possible", ""
    if (count := sum(port.width for port in work.ports)) > MOST_PORTS:
        yield "ports", f"expected at most {MOST_PORTS} ports, got {count}", ""
        return
    taken: dict[tuple[int, str], list[str]] = {}
    for port in (one for ports in work.ports for one in ports.each() if one.host_port):
        others = taken.setdefault((port.host_port, port.protocol), [])
        if port.address in others and not port.spare:
            yield "ports", f"{port.address}:{port.host_port}/{port.protocol} is given twice", ""
        others.append(port.address)
        if "0.0.0.0" in others and len([address for address in others if "." in address]) > 1 and not port.spare:
            yield "ports", f"the port {port.host_port}/{port.protocol} is given twice", "0.0.0.0 is every IPv4 address"
