"""What a workload must fulfil, whether it comes from a file or from the flags of `run`."""

from __future__ import annotations

import re

from vmctl.errors import SpecError
from vmctl.spec import userid
from vmctl.spec.workload import Workload

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"


def check_name(name: str) -> None:
    """Raise SpecError if `name` cannot be used for an instance: it becomes a folder, a cgroup and a host name."""
    if not re.fullmatch(NAME, name):
        raise SpecError(
            f"the name {name!r} cannot be used",
            hint="use up to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
        )


def check(work: Workload) -> None:
    """Raise SpecError, which names the key, if a value cannot be used."""
    for rule in (_check_name, _check_texts, _check_ready, _check_numbers, _check_network):
        rule(work)


def _check_name(work: Workload) -> None:
    check_name(work.name)


def _check_texts(work: Workload) -> None:
    if work.command is not None and (not work.command or not work.command[0]):
        raise SpecError(
            "the key command: expected a program, got an empty list", hint="leave it out to run the image's command"
        )
    for key in work.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise SpecError(f"the key env: {key!r} cannot be the name of a variable")
    for where, path in (("workdir", work.workdir), *((f"files[{i}].path", f.path) for i, f in enumerate(work.files))):
        if path is not None and (not path.startswith("/") or ".." in path.split("/") or "\n" in path):
            raise SpecError(f"the key {where}: expected an absolute path without .., got {path!r}")
    for i, file in enumerate(work.files):
        if file.path.endswith("/"):
            raise SpecError(f"the key files[{i}].path: expected a file, got the folder {file.path}")
    userid.check(work.user)
    texts = [*(work.command or ()), *work.env.values(), work.user or "", *(file.path for file in work.files)]
    if any("\0" in text for text in texts):
        raise SpecError("a text contains a NUL character, which is not possible in a command, variable or path")


def _check_ready(work: Workload) -> None:
    if work.ready is None:
        return
    probes = [name for name in ("http", "tcp", "log", "exec") if getattr(work.ready, name) is not None]
    if len(probes) != 1:
        raise SpecError(f"the key ready: expected one of http, tcp, log, exec, got {', '.join(probes) or 'none'}")
    if work.ready.exec is not None and not any(work.ready.exec[:1]):
        raise SpecError("the key ready.exec: expected a program, got an empty list")
    if work.ready.log is not None:
        try:
            re.compile(work.ready.log)
        except re.error as error:
            raise SpecError(f"the key ready.log: {work.ready.log!r} is not a regular expression: {error}") from None
    if work.ready.tcp is not None and not 0 < work.ready.tcp < 65536:
        raise SpecError(f"the key ready.tcp: expected a port, got {work.ready.tcp}")


def _check_numbers(work: Workload) -> None:
    limits = work.resources
    for key, value, least, most in (
        ("cpus", limits.cpus, 0.01, 8192),  # the most that Linux can be built for (CONFIG_NR_CPUS)
        ("memory", limits.memory_bytes, 1 << 20, 1 << 62),
        ("pids", limits.pids, 1, 1 << 22),  # PID_MAX_LIMIT
        ("disk", limits.disk_bytes, 1 << 20, 1 << 62),
    ):
        if value is not None and not least <= value <= most:
            kind, bound = ("least", least) if value < least else ("most", most)
            raise SpecError(f"the key resources.{key}: expected at {kind} {bound}, got {str(value)[:40]}")
    if not 128 << 10 <= work.logs.size_bytes <= 1 << 62:  # each part is larger than one write of the supervisor
        raise SpecError(f"the key logs.size: expected at least 128K, got {work.logs.size_bytes}")


def _check_network(work: Workload) -> None:
    if work.network == "none" and (work.ports or (work.ready and (work.ready.http or work.ready.tcp))):
        raise SpecError("the key network: with none, ports and probes by http or tcp are not possible")
    ends = [(port.address, port.host_port, port.protocol) for port in work.ports]
    for end in ends:
        if ends.count(end) > 1:
            raise SpecError(f"the key ports: {end[0]}:{end[1]}/{end[2]} is given twice")
