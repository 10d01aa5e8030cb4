"""A workload, or a command, from the flags of `run` and `exec`: the command line and the Python API go through here.

`args` has an attribute for each flag, as argparse makes them. What was not given is None, False, an empty list, or the
default of the flag.
"""

from __future__ import annotations

import os

from vmctl.backend import Command
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING
from vmctl.spec import flags
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

MODE = "container"  # if none is given
# the key of the workload file that a flag gives: errors name the flag
FLAGS = {
    "env": "--env",
    "workdir": "--workdir",
    "user": "--user",
    "ports": "--publish",
    "volumes": "--volume",
    "resources.cpus": "--cpus",
    "resources.memory": "--memory",
    "resources.pids": "--pids",
    "resources.disk": "--disk",
    "network": "--network",
    "network.networks": "--network",
    "network.networks.address": "--ip",
    "network.networks.aliases": "--network",
    "network.aliases": "--network-alias",
    "network.egress": "--egress",
    "network.dns": "--dns",
    "network.dns_search": "--dns-search",
    "network.dns_opt": "--dns-option",
    "restart": "--restart",
    "hostname": "--hostname",
    "tmpfs": "--tmpfs",
    "shm_size": "--shm-size",
    "ulimits": "--ulimit",
    "devices": "--device",
    "sysctls": "--sysctl",
    "extra_hosts": "--add-host",
    "labels": "--label",
    "stop_signal": "--stop-signal",
    "stop_timeout": "--stop-timeout",
    "secrets": "--secret",
    "env_file": "--env-file",
    "health": "--health-cmd",
    "health.exec": "--health-cmd",
    "health.interval": "--health-interval",
    "health.timeout": "--health-timeout",
    "health.retries": "--health-retries",
    "health.start_period": "--health-start-period",
    "health.start_interval": "--health-start-interval",
}


def workload(args: Any, command: Sequence[str], terminal: Mapping[str, str]) -> Workload:
    """Return the workload that the flags of `run` describe. Raises SpecError, which names the flag.

    `command` is the command without `--`, and `terminal` has the variables that describe the caller's terminal.
    """
    volumes, tmpfs = args.volume, args.tmpfs
    if args.mount:
        from vmctl.spec import mountflag

        more = mountflag.parse(args.mount)
        volumes, tmpfs = [*volumes, *more.volumes], [*tmpfs, *more.tmpfs]
    document = {
        "name": args.name or f"run-{os.urandom(4).hex()}",
        "image": args.image,
        "command": command or None,
        "entrypoint": None if args.entrypoint is None else list(filter(None, [args.entrypoint])),
        "env": {**terminal, **flags.variables(args.env)},
        "env_file": args.env_file,
        "secrets": args.secret,
        "health": health(args),
        "workdir": args.workdir,
        "user": args.user,
        "ports": args.publish,
        "volumes": volumes,
        "resources": {"cpus": args.cpus, "memory": args.memory, "pids": args.pids, "disk": args.disk},
        "network": flags.networks(
            *(args.network, args.network_alias, args.ip, args.egress, args.dns, args.dns_search, args.dns_option)
        ),
        "init": args.init,
        "read_only": args.read_only,
        "restart": args.restart,
        "tty": args.tty,
        "stdin_open": args.interactive and getattr(args, "detach", True),
        "hostname": args.hostname,
        "tmpfs": tmpfs,
        "shm_size": args.shm_size,
        "ulimits": args.ulimit,
        "devices": args.device,
        "sysctls": settings(args.sysctl),
        "extra_hosts": hosts(args.add_host),
        "labels": flags.pairs(args.label),
        "stop_signal": args.stop_signal,
        "stop_timeout": args.stop_timeout and args.stop_timeout + "s" * args.stop_timeout.isdigit(),
        "container": {"userns": args.userns},
    }
    work = flags.workload(document, FLAGS)
    if not work.volumes:
        return work
    here = os.getcwd()  # a later start may be in another folder
    return work._replace(volumes=tuple(volume.beside(here) for volume in work.volumes))


def command(args: Any, words: tuple[str, ...], terminal: Mapping[str, str]) -> Command:
    """Return the command for an instance that the flags of `exec` describe. Raises SpecError."""
    env = flags.variables(args.env, args.env_file)
    document = {"command": words, "env": env, "workdir": args.workdir, "user": args.user}
    work = flags.workload({"name": "exec", "image": "", **document}, FLAGS)  # of these only its rules matter
    given = {**terminal, **work.env}
    return Command(words, tuple(given.items()), args.workdir, args.user)


def health(args: Any) -> dict[str, Any] | None:
    """Return the section `health` of the flags, None without them. Raises SpecError."""
    given = {
        "exec": args.health_cmd and ["/bin/sh", "-c", args.health_cmd],
        "interval": args.health_interval,
        "timeout": args.health_timeout,
        "retries": args.health_retries,
        "start_period": args.health_start_period,
        "start_interval": args.health_start_interval,
    }
    if args.no_healthcheck and any(given.values()):
        raise SpecError("--no-healthcheck and flags of a check cannot be combined", hint="leave one of them out")
    return {"disable": True} if args.no_healthcheck else given if any(given.values()) else None


def settings(texts: list[str]) -> dict[str, str]:
    """Return the settings of --sysctl by their names. Raises SpecError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SpecError(f"--sysctl: expected NAME=VALUE, got {text[:80]}", hint="net.core.somaxconn=512")
        found[name] = value
    return found


def hosts(texts: list[str]) -> list[str]:
    """Return the entries of --add-host as the workload file has them; docker takes NAME=ADDRESS and brackets too."""
    found = []
    for text in texts:
        name, _, address = text.partition("=" if "=" in text else ":")
        if address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        found.append(f"{name}:{address}")
    return found
