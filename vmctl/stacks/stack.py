"""A stack, read and checked: its services as workloads, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from vmctl.errors import SpecError
from vmctl.spec.workload import Workload
from vmctl.stacks.item import Place

Condition = Literal["started", "ready", "healthy", "completed"]


class Dependency(NamedTuple):
    """What has to be true of another service before this one starts."""

    condition: Condition
    place: Place
    required: bool = True  # else it counts only if it is started too
    restart: bool = False  # this one is restarted after the other


class Build(NamedTuple):
    """How the image of a service is built."""

    context: str
    dockerfile: str
    arguments: Mapping[str, str]
    target: str
    network: str
    cache: bool
    place: Place


class Needed(NamedTuple):
    """Something that only a mode with the host's kernel gives: a reason to refuse other modes."""

    place: Place
    text: str


class Service(NamedTuple):
    """One service; `work` is the workload of its first instance."""

    name: str
    work: Workload
    place: Place
    mode: str = ""  # "": that of the command line
    depends: Mapping[str, Dependency] = {}
    profiles: tuple[str, ...] = ()
    scale: int = 1
    build: Build | None = None
    pull: str = ""  # always | missing | never | build, or ""
    own_name: bool = False  # its instance has the name of `container_name`
    shared_kernel: tuple[Needed, ...] = ()
    secret_env: tuple[str, ...] = ()  # variables that its secrets come from
    beside: str = ""  # the service whose network it shares
    missing: tuple[SpecError, ...] = ()  # errors for what is not on this host: only for a service that is started

    def instances(self, scale: int | None = None) -> list[Workload]:
        """Return the workload of each instance: STACK-SERVICE, STACK-SERVICE-2 and so on."""
        count = self.scale if scale is None else scale
        first = self.work.name
        return [self.work._replace(name=first if n == 1 else f"{first}-{n}") for n in range(1, count + 1)]


class Network(NamedTuple):
    """A network of the stack; an external one exists already, and stays."""

    name: str
    place: Place
    external: bool = False
    internal: bool = False
    subnet: str = ""
    gateway: str = ""
    labels: Mapping[str, str] = {}


class Volume(NamedTuple):
    """A named volume of the stack; an external one exists already, and stays."""

    name: str
    place: Place
    external: bool = False
    labels: Mapping[str, str] = {}


class Source(NamedTuple):
    """What the command line gives: the files, and what changes their meaning."""

    files: tuple[str, ...]
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    name: str = ""
    environ: Mapping[str, str] = {}


class Stack(NamedTuple):
    """All of it; `networks` and `volumes` are by their names on the host, `values` are the variables."""

    name: str
    source: Source
    services: Mapping[str, Service]
    networks: Mapping[str, Network] = {}
    volumes: Mapping[str, Volume] = {}
    mode: str = ""
    profiles: tuple[str, ...] = ()
    values: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()
