"""An image: ordered layers, a configuration, digests; and the process that a workload runs in it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from contextlib import suppress

from vmctl.errors import SpecError, VmctlError
from vmctl.light import signal
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec import rules, userid
from vmctl.spec.workload import File, Ulimit, Workload

if TYPE_CHECKING:
    from typing import Any, Protocol

    class Stoppable(Protocol):
        """The part of an instance's state about its end."""

        stop_signal: int
        stop_s: float
        warnings: list[str]


DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# uname(2)'s machine -> OCI's architecture, which is Go's GOARCH
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


class ImageError(VmctlError):
    """An archive, a layer or an answer of a registry is not valid."""


class Layer(NamedTuple):
    """One layer: identified by the SHA-256 of its tar (OCI's diff id), stored as an EROFS file."""

    digest: str  # "sha256:..."
    path: str  # the EROFS file
    size_bytes: int  # size of the tar, as in a manifest

    @property
    def key(self) -> str:
        """The file's name without `.erofs`: the digest's digits, or other digits if it depends on the layers below."""
        return os.path.basename(self.path).partition(".")[0]


class ImageConfig(NamedTuple):
    """What to run if the workload does not specify it; the names are those of the OCI image configuration."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # "NAME=value"
    workdir: str = ""
    user: str = ""  # "", name, uid, name:group or uid:gid
    stop_signal: str = ""
    stop_timeout_s: float | None = None
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    healthcheck: Mapping[str, Any] = {}  # as in the image: see vmctl/keeping/health.py


class Image(NamedTuple):
    """An image in the store."""

    name: str
    digest: str  # digest of the manifest
    architecture: str  # as OCI spells it: amd64, arm64
    layers: tuple[Layer, ...]  # lowest first
    config: ImageConfig
    created: str  # RFC 3339
    disk: str = ""  # path of the qcow2 file, if the image is a whole disk instead of layers

    @property
    def stack(self) -> tuple[Layer, ...]:
        """The layers to mount, lowest first: each once.

        Of a layer that the image has twice, the topmost hides all of the others; overlayfs refuses one twice.
        """
        return tuple(reversed({layer.key: layer for layer in reversed(self.layers)}.values()))


OVERLAY_LAYERS_MAX = 500  # of the kernel: OVL_MAX_STACK


def check_files(image: Image, most_layers: int = OVERLAY_LAYERS_MAX) -> None:
    """Raise VmctlError if an image has too many layers, or neither a layer nor a disk: then nothing can be executed."""
    if not image.layers and not image.disk:
        raise VmctlError(
            f"the image {image.name} is empty: it has no layer",
            hint=f"`vmctl image history {image.name}` lists its steps",
        )
    if len(image.stack) > most_layers:
        raise VmctlError(
            f"the image {image.name} has {len(image.stack)} layers, and this mode can use {most_layers}",
            hint=f"a Dockerfile with `FROM scratch` and `COPY --from={image.name} / /` makes one layer of them",
        )


class Process(NamedTuple):
    """The process of a workload, complete except HOME, which is read from the image's /etc/passwd."""

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str
    ulimits: tuple[Ulimit, ...] = ()
    hidden: frozenset[str] = frozenset()  # variables whose values are not shown: those of `env_file`


def process(image: Image, work: Workload) -> Process:
    """Return the process to execute; the workload's settings override the image's, as in docker-run(1).

    A relative working directory of an image is below `/`. Raises SpecError if neither has a command, the user is a
    number that no user can have, or a text has a NUL.
    """
    config = image.config
    argv = _argv(config, work)
    if not argv:
        raise SpecError(
            f"the image {image.name} names no command, and none was given for {work.name}",
            hint=f"`vmctl run {image.name} -- COMMAND`, or `command: [program, argument]` in a workload file",
        )
    user = work.user or config.user
    userid.check(user)
    env = {"PATH": DEFAULT_PATH, **({"TERM": "xterm"} if work.tty else {})}
    env.update(_pair(line) for line in config.env if "=" in line)  # a name alone is not set (environ(7))
    env.update(work.env)
    workdir = posixpath.normpath("/" + (work.workdir or config.workdir).lstrip("/"))
    rules.check_texts((*argv, *env, *env.values(), workdir, user))
    return Process(tuple(argv), env, workdir, user, work.ulimits)


def _argv(config: ImageConfig, work: Workload) -> tuple[str, ...]:
    """Return the entrypoint and its arguments: an entrypoint of the workload is not for the image's command."""
    if work.entrypoint is None:
        return (*config.entrypoint, *(work.command or config.cmd))
    return (*work.entrypoint, *(work.command or ()))


# what an image leaves to the runtime: mounted on it, so that no change of it is part of an image
PROVIDED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
TMP = "/tmp"  # created if it is missing


def provided(
    work: Workload,
    hostname: str,
    address: str | None,
    name_servers: str = "",
    known: Sequence[tuple[str, str]] = (),
) -> tuple[File, ...]:
    """Return the files that hide those of the image, but for those that the workload has itself.

    `name_servers` is the content of /etc/resolv.conf: empty if no name server can be reached, so that a look-up fails
    at once. `address` is the instance's, None without a network; `known` has more lines of hosts, as address and names
    (hosts(5), resolv.conf(5)).
    """
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address or '127.0.0.1'}\t{hostname}\n"
    hosts += "".join(f"{at}\t{names}\n" for at, names in known if (at, names) != (address, hostname))
    for name, _, at in (text.partition(":") for text in work.extra_hosts):
        if at != rules.HOST_GATEWAY or work.network == "host":  # else the address is in `known`
            hosts += f"{'127.0.0.1' if at == rules.HOST_GATEWAY else at}\t{name}\n"
    own = {posixpath.normpath(path) for path in (*(f.path for f in work.files), *(v.target for v in work.volumes))}
    contents = zip(PROVIDED, (hosts, f"{hostname}\n", name_servers), strict=True)
    return tuple(File(path, content) for path, content in contents if path not in own)


def data_folders(image: Image) -> tuple[str, ...]:
    """Return the folders that VOLUME of an image names, which each instance gets; places of the kernel are left out."""
    found = []
    for path in image.config.volumes:
        place = posixpath.normpath("/" + path.lstrip("/"))
        with suppress(ValueError):
            rules.check_volume_target(place)
            found.append(place)
    return tuple(found)


class Ending(NamedTuple):
    """How `stop` asks a workload to end."""

    signum: int
    timeout_s: float | None  # until SIGKILL; None: the mode's default
    warning: str  # empty, or why the image's signal is not used

    def record(self, state: Stoppable) -> None:
        """Record it in the state of an instance, whose `stop_s` is the mode's default so far."""
        state.stop_signal = self.signum
        if self.timeout_s is not None:
            state.stop_s = self.timeout_s
        if self.warning:
            state.warnings.append(self.warning)


def ending(image: Image, work: Workload) -> Ending:
    """Return how a workload is stopped; its own settings override the image's."""
    timeout_s = image.config.stop_timeout_s if work.stop_timeout_s is None else work.stop_timeout_s
    if work.stop_signal is not None or not image.config.stop_signal:
        return Ending(work.stop_signal or signal.SIGTERM, timeout_s, "")
    from vmctl.spec import signals

    try:
        return Ending(signals.number(image.config.stop_signal), timeout_s, "")
    except ValueError as error:
        return Ending(signal.SIGTERM, timeout_s, f"STOPSIGNAL of the image: expected {error}; SIGTERM is used")


def architecture() -> str:
    """Return this machine's architecture as OCI spells it."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value
