"""The workload: the typed, frozen form of a workload file, the same for every mode.

These classes are named tuples, not dataclasses or msgspec structs: they are on the start path of `vmctl run`, where
importing those would take longer than starting the container. `specfields.py` derives the validator from them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from vmctl import records
from vmctl.light import json
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Literal


class Bytes(int):
    """A size in bytes; in the workload file a text such as 256M."""


class Seconds(float):
    """A duration in seconds; in the workload file a text such as 60s."""


class Signal(int):
    """The number of a signal; in the workload file also a name such as SIGQUIT."""


class FileMode(int):
    """Permission bits; in the workload file an octal text such as "0644"."""


class File(NamedTuple):
    """A file that is written in the instance before the command starts."""

    path: str
    content: str = ""
    mode: FileMode = FileMode(0o644)
    base64: str | None = None  # instead of `content`
    source: str | None = None  # a file of the host, which is read together with the workload file

    def data(self) -> bytes:
        """Return the content."""
        if self.base64 is None:
            return self.content.encode()
        from binascii import a2b_base64

        return a2b_base64(self.base64)


class Port(NamedTuple):
    """Ports of the instance, published on the host; in the workload file `[[address:]host:]guest[/udp]`."""

    address: str
    host_port: int  # 0: a free one
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    width: int = 1  # so many ports from both numbers on
    spare: int = 0  # if the port of the host is taken, so many after it may be used instead

    def __str__(self) -> str:
        host, own = _ports(self.host_port, self.width + self.spare), _ports(self.port, self.width)
        return f"{self.shown_address()}:{host}->{own}/{self.protocol}"

    def shown_address(self) -> str:
        """Return the address as it is before a colon and a port (RFC 3986)."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def each(self) -> Iterator[Port]:
        """Return each of the ports."""
        host, own = self.host_port, self.port
        return (self._replace(host_port=host and host + n, port=own + n, width=1) for n in range(self.width))


def _ports(first: int, count: int) -> str:
    return f"{first}-{first + count - 1}" if first and count > 1 else str(first or "")


class Volume(NamedTuple):
    """A folder or file of the host, or a volume, mounted in the instance; in the workload file `source:target[:ro]`."""

    source: str  # a path, the name of a volume, or "" for a volume that is removed with the instance
    target: str
    read_only: bool = False
    nocopy: bool = False  # of a volume: it does not begin with what the image has at `target`

    @property
    def is_path(self) -> bool:
        """Whether the source is a file or folder of the host."""
        return self.source[:1] in ("/", ".")

    def beside(self, folder: str) -> Volume:
        """Return it with the path of its source relative to a folder."""
        return self._replace(source=posixpath.join(folder, self.source)) if self.is_path else self


class Device(NamedTuple):
    """A device of the host; in the workload file `source[:target][:rwm]`."""

    source: str
    target: str
    access: str = "rwm"


class Tmpfs(NamedTuple):
    """A file system in memory; in the workload file `target[:size=64M,mode=1777,noexec]`."""

    target: str
    size_bytes: Bytes | None = None
    mode: FileMode = FileMode(0o1777)
    noexec: bool = False

    def options(self) -> str:
        """Return the options of the mount (tmpfs(5))."""
        size = "" if self.size_bytes is None else f",size={self.size_bytes}"
        return f"nosuid,nodev{',noexec' if self.noexec else ''},mode={self.mode:o}{size}"


def depth(place: str) -> int:
    """Return how many folders a mount is below the root; those with fewer come first: /data would hide /data/new."""
    return posixpath.normpath(place).count("/")


class Ulimit(NamedTuple):
    """A limit of getrlimit(2) for each process; None: without limit. In the workload file `name=soft[:hard]`."""

    name: str
    soft: int | None
    hard: int | None


DEFAULT_PIDS = 4096  # enough for any build; it keeps a fork bomb from the host's limit of 32768 or more


class Resources(NamedTuple):
    """Limits; for pids None means DEFAULT_PIDS, else no limit in container mode and the default size in vm mode."""

    cpus: float | None = None
    memory_bytes: Bytes | None = None
    pids: int | None = None
    disk_bytes: Bytes | None = None


class Logs(NamedTuple):
    """How much output is kept of each stream; the oldest is dropped first."""

    size_bytes: Bytes = Bytes(64 << 20)


class HttpProbe(NamedTuple):
    """A GET request that must be answered with a status below 400; in the workload file `PORT/path`."""

    port: int
    path: str = "/"


class Ready(NamedTuple):
    """The probe that decides when the workload is ready: at most one. Without, the workload has to start in time."""

    http: HttpProbe | None = None
    tcp: int | None = None
    log: str | None = None
    exec: tuple[str, ...] | None = None
    timeout_s: Seconds = Seconds(60)

    def probes(self) -> list[str]:
        """Return the keys of the probes that are set."""
        return [name for name in ("http", "tcp", "log", "exec") if getattr(self, name) is not None]


class Health(NamedTuple):
    """The check that decides whether a running workload is healthy: at most one of exec, http, tcp.

    Without one it is the image's, with these times. What is None is as in the image, or the default of `vmctl.health`.
    """

    exec: tuple[str, ...] | None = None
    http: HttpProbe | None = None
    tcp: int | None = None
    interval_s: Seconds | None = None
    timeout_s: Seconds | None = None
    retries: int | None = None
    start_period_s: Seconds | None = None
    start_interval_s: Seconds | None = None
    disable: bool = False

    def probes(self) -> list[str]:
        """Return the keys of the probes that are set."""
        return [name for name in ("exec", "http", "tcp") if getattr(self, name) is not None]


class Restart(NamedTuple):
    """Whether to start the workload again when it ends; in the file `on-failure[:n]` or only the policy."""

    policy: Literal["no", "on-failure", "always", "unless-stopped"] = "no"
    max_retries: int | None = None


class Joined(NamedTuple):
    """A network that the instance is in; in the workload file its name is enough."""

    name: str
    aliases: tuple[str, ...] = ()
    address: str | None = None


class NetworkOptions(NamedTuple):
    """The networks of an instance, if one name is not enough."""

    networks: tuple[Joined, ...] = (Joined("bridge"),)
    aliases: tuple[str, ...] = ()  # in each of the networks
    egress: str | tuple[str, ...] = "all"  # or `none`, or destinations outside: see egress.py
    dns: tuple[str, ...] = ()  # name servers outside, instead of those of the host
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()  # of resolv.conf(5)


SECRETS = "/run/secrets"


class Secret(NamedTuple):
    """A file in memory, in /run/secrets; as a flag `id=NAME,src=FILE` or `id=NAME,env=NAME`. Only they are recorded."""

    name: str
    file: str | None = None  # of the host
    env: str | None = None  # variable of the process that starts the workload
    mode: FileMode = FileMode(0o400)


class EnvFile(NamedTuple):
    """A file with variables, read at each start. The record has its path, not its content."""

    path: str
    required: bool = True
    format: Literal["quoted", "raw"] = "quoted"  # raw: as docker-run(1) --env-file, quotes are part of the value


class VmOptions(NamedTuple):
    """Options that only vm mode reads."""

    boot: Literal["auto", "direct", "system"] = "auto"
    kernel: str = "debian"
    cloud_init: str | None = None
    console: Literal["late", "live"] = "late"
    warm: Literal["off", "auto", "on"] = "off"  # whether a start may begin with the memory of an earlier guest


class ContainerOptions(NamedTuple):
    """Options that only container mode reads."""

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: Literal["default", "unconfined"] = "default"
    userns: Literal["auto", "host"] = "auto"  # auto: a user namespace with a separate range of ids


class Workload(NamedTuple):
    """One workload file, validated."""

    name: str
    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: Mapping[str, str] = {}
    workdir: str | None = None
    user: str | None = None
    files: tuple[File, ...] = ()
    ports: tuple[Port, ...] = ()
    volumes: tuple[Volume, ...] = ()
    resources: Resources = Resources()
    logs: Logs = Logs()
    ready: Ready | None = None
    restart: Restart = Restart()
    network: str | NetworkOptions = "bridge"  # none, host, or the name of a network
    init: bool = False
    vm: VmOptions = VmOptions()
    container: ContainerOptions = ContainerOptions()
    read_only: bool = False
    labels: Mapping[str, str] = {}
    stop_signal: Signal | None = None
    stop_timeout_s: Seconds | None = None
    hostname: str | None = None
    tmpfs: tuple[Tmpfs, ...] = ()
    shm_size_bytes: Bytes | None = None
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = {}
    extra_hosts: tuple[str, ...] = ()  # NAME:ADDRESS, or NAME:host-gateway
    tty: bool = False
    stdin_open: bool = False
    health: Health | None = None
    secrets: tuple[Secret, ...] = ()
    env_file: tuple[EnvFile, ...] = ()
    devices: tuple[Device, ...] = ()

    def joined(self) -> tuple[Joined, ...]:
        """Return the networks of the instance with all aliases, in their order; none for none, host, container:NAME."""
        if isinstance(self.network, str):
            return () if self.network in ("none", "host") or ":" in self.network else (Joined(self.network),)
        aliases = self.network.aliases
        return tuple(one._replace(aliases=(*one.aliases, *aliases)) for one in self.network.networks)

    def has_own_volumes(self) -> bool:
        """Return whether it has volumes that vmctl keeps, by name or with the instance."""
        return any(not volume.is_path for volume in self.volumes)

    def egress(self) -> str | tuple[str, ...]:
        """Return what the instance may reach outside of its networks: `all`, `none` or destinations."""
        return "all" if isinstance(self.network, str) else self.network.egress

    def to_json(self) -> str:
        """Return the workload as JSON with named keys, for the instance directory and for other processes."""
        return json.dumps(records.versioned(records.plain(self)), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, what: str = "the workload") -> Workload:
        """Return the workload from the JSON of `to_json`, also of vmctl 0.1. Raises records.UnreadableError."""
        values = records.parse(text, what)
        if isinstance(values, list):
            from vmctl import oldforms

            values = oldforms.workload(values, what)
        values = records.checked_format(values, what)
        if isinstance(container := values.get("container"), dict):
            container.setdefault("userns", "host")  # recorded by a vmctl without this key
        return cls.from_values(values, what)

    @classmethod
    def from_values(cls, values: dict[str, Any], what: str = "the workload") -> Workload:
        """Return the workload with these keys and values. Raises records.UnreadableError."""
        work: Workload = records.build(cls, values, what, _RECORDS)
        return work

    def digest(self) -> str:
        """Return the SHA-256 of the keys that differ from the default, so adding a key here changes no digest."""
        import hashlib  # it loads OpenSSL, 3 ms

        text = json.dumps(records.differing(self), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


# the keys whose value is a mapping with keys
_SECTIONS = (Resources, Logs, Ready, Health, VmOptions, ContainerOptions)
SECTIONS: dict[str, Any] = {kind.__name__: kind for kind in _SECTIONS}
_SCALARS = (Bytes, Seconds, Signal, FileMode, File, Port, Volume, Device, Tmpfs, Ulimit, HttpProbe, Restart)
_MAPPINGS = (Joined, NetworkOptions, Secret, EnvFile)
_RECORDS: dict[str, Any] = {kind.__name__: kind for kind in (*_SECTIONS, *_SCALARS, *_MAPPINGS)}
