"""Start instances: `run` an image, `up` a workload file, `find` one that exists, `compare` modes.

With `keep` an instance stays after its block, the program and a failed start. `ports`: see `Instance.port`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmctl import fromflags
from vmctl.api.client import Call, ask
from vmctl.api.comparison import Comparison
from vmctl.api.instance import Instance, texts
from vmctl.errors import SpecError

if TYPE_CHECKING:
    from typing import Literal

    from vmctl.api.instance import Path, Variables

MODES = ("host", "container", "vm")  # of `compare`, as in the command line


def run(
    image: str,
    command: Sequence[str] = (),
    *,
    mode: str = fromflags.MODE,
    name: str | None = None,
    env: Variables = (),
    env_file: Sequence[Path] = (),
    workdir: str | None = None,
    user: str | None = None,
    entrypoint: str | None = None,
    ports: Sequence[int | str] = (),
    publish_all: bool = False,
    volumes: Sequence[str] = (),
    mounts: Sequence[str] = (),
    tmpfs: Sequence[str] = (),
    memory: str | int | None = None,
    cpus: str | float | None = None,
    pids: str | int | None = None,
    disk: str | int | None = None,
    shm_size: str | int | None = None,
    ulimits: Variables = (),
    devices: Sequence[str] = (),
    sysctls: Variables = (),
    network: str | Sequence[str] = (),
    network_alias: Sequence[str] = (),
    ip: str | None = None,
    egress: Sequence[str] = (),
    dns: Sequence[str] = (),
    dns_search: Sequence[str] = (),
    dns_option: Sequence[str] = (),
    hostname: str | None = None,
    add_host: Sequence[str] = (),
    labels: Variables = (),
    secrets: Sequence[str] = (),
    init: bool = False,
    read_only: bool = False,
    tty: bool = False,
    interactive: bool = False,
    restart: str | None = None,
    stop_signal: str | None = None,
    stop_timeout: str | float | None = None,
    health_cmd: str | None = None,
    health_interval: str | None = None,
    health_timeout: str | None = None,
    health_retries: str | int | None = None,
    health_start_period: str | None = None,
    health_start_interval: str | None = None,
    no_healthcheck: bool = False,
    userns: Literal["auto", "host"] = "auto",
    pull: Literal["never", "missing", "always"] = "never",
    platform: str | None = None,
    options: Mapping[str, str] | None = None,
    wait: bool = True,
    keep: bool = False,
) -> Instance:
    """Return an image's new instance; parameters are flags of `vmctl run -d`. Raises errors of vmctl.errors."""
    return _run(dict(locals()))


def _run(given: dict[str, Any]) -> Instance:
    own = {name: given.pop(name) for name in ("wait", "keep")}
    mode, options = given.pop("mode"), given.pop("options")
    return _started("run", mode, options, **own, flags=flags_of(given))


def flags_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of the command line that parameters of `run` mean, by the names that argparse gives them."""
    if isinstance(given["command"], str):
        raise SpecError(f"a command is a list of words, not {given['command']!r}", hint='["sh", "-c", "..."]')
    network = given["network"]
    renamed = {"ports": "publish", "volumes": "volume", "mounts": "mount", "labels": "label", "ulimits": "ulimit"}
    renamed |= {"secrets": "secret", "sysctls": "sysctl", "devices": "device"}
    flags: dict[str, Any] = {}
    for name, value in given.items():
        flag = renamed.get(name, name)
        if name == "network":
            flags[flag] = [network] if isinstance(network, str) else list(network)
        elif name in ("env", "labels", "ulimits", "sysctls"):
            flags[flag] = texts(value)
        elif isinstance(value, (str, bool)) or value is None:
            flags[flag] = value
        elif isinstance(value, (int, float)):
            flags[flag] = f"{value:g}" if isinstance(value, float) else str(value)
        else:
            flags[flag] = [str(item) if isinstance(item, int) else os.fspath(item) for item in value]
    return flags


def up(
    file: Path,
    *,
    mode: str = fromflags.MODE,
    name: str | None = None,
    options: Mapping[str, str] | None = None,
    wait: bool = True,
    keep: bool = False,
) -> Instance:
    """Start the workload of a file and return its instance once it is ready, as `vmctl up` does.

    Raises SpecError for a stack, and the errors of `run`.
    """
    return _started("up", mode, options, wait=wait, keep=keep, file=os.fspath(file), name=name)


def _started(
    verb: str, mode: str, options: Mapping[str, str] | None, *, wait: bool, keep: bool, **given: Any
) -> Instance:
    request = {**given, "mode": mode, "options": dict(options or {}), "wait": wait, "keep": keep}
    return Instance(Call(verb, request).result(undo=lambda values: Instance(values, keep=False).remove()), keep=keep)


def find(name: str) -> Instance:
    """Return the instance of a name, which something else has started; it is kept. Raises NoSuchInstance."""
    return Instance(ask("find", name=name), keep=True)


def compare(
    what: Path,
    command: Sequence[str] = (),
    *,
    modes: Sequence[str] = MODES,
    options: Mapping[str, str] | None = None,
) -> Comparison:
    """Run the same workload file or image in each mode, and return what differs and what is the same.

    `command` is run next to it in each mode. Nothing of it stays. Raises the errors of `vmctl compare`.
    """
    given = {"what": os.fspath(what), "command": list(command), "modes": list(modes), "options": dict(options or {})}
    return Comparison(tuple(modes), ask("compare", **given))
