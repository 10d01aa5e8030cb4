"""Secrets, and variables from files: values that are in memory only, in no record, log, command line or image.

They are read at each start. Then the process that lives as long as the workload holds them in a file in memory
(memfd_create(2)), from which `exec`, and a restart by vmctl, read them: the sources may have changed or gone by then.
Only the owner of the process can open it, through /proc/PID/fd (proc(5)).
"""

from __future__ import annotations

import fcntl
import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping

from vmctl import records
from vmctl.backend import Problem
from vmctl.errors import SpecError, StateError
from vmctl.instances.instance import Instance
from vmctl.light import json
from vmctl.linux import processes
from vmctl.named import NamedTuple
from vmctl.spec import envfile, textfile
from vmctl.spec.workload import EnvFile, Secret, Workload

MOST_BYTES = 512 << 10  # of all secrets and variables together
_NAME = "vmctl-held"
_KEY = "held"  # in `State.own`


class Held(NamedTuple):
    """The values of one start."""

    env: Mapping[str, str]
    files: Mapping[str, bytes]  # name of the secret -> content


_known: dict[tuple[object, ...], Held] = {}  # by their sources: a pipe can be read only once
_inherited: list[Held] = []
_variables_taken: dict[bytes, bytes] = {}


def needed(work: Workload) -> bool:
    """Return whether a workload has secrets or files of variables."""
    return bool(work.secrets or work.env_file)


def problems(work: Workload) -> list[Problem]:
    """Return why the values cannot be read, if so."""
    try:
        read(work)
    except SpecError as error:
        return [Problem(str(error), error.hint)]
    return []


def read(work: Workload) -> Held:
    """Return the values from their sources, or those that this process has inherited. Raises SpecError."""
    if _inherited:
        return _inherited[0]
    sources = (work.secrets, work.env_file)
    if sources not in _known:
        env: dict[str, str] = {}
        for file in work.env_file:
            env.update(_variables(file))
        found = Held(env, {secret.name: _content(secret) for secret in work.secrets})
        size = sum(len(name) + len(text.encode()) for name, text in env.items()) + sum(map(len, found.files.values()))
        if size > MOST_BYTES:
            raise SpecError(f"secrets and env_file have {size} bytes, more than {MOST_BYTES >> 10} KiB")
        _known[sources] = found
    return _known[sources]


def _variables(file: EnvFile) -> dict[str, str]:
    if not file.required and not os.path.lexists(file.path):
        return {}
    return envfile.read(file.path, raw=file.format == "raw")


def _content(secret: Secret) -> bytes:
    if secret.file is None:
        return _taken(secret.name, secret.env or "")
    try:
        content = textfile.content(secret.file, MOST_BYTES)
    except OSError as error:
        raise SpecError(f"the secret {secret.name}: {secret.file} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise SpecError(f"the secret {secret.name}: {secret.file} has more than {MOST_BYTES >> 10} KiB")
    return content


def _taken(name: str, variable: str) -> bytes:
    """Return a variable of this process and take it out: processes that it starts must not inherit it."""
    key = os.fsencode(variable)
    if key in os.environb:
        _variables_taken[key] = os.environb.pop(key)
    if key not in _variables_taken:
        raise SpecError(f"the secret {name}: the variable {variable} is not set", hint=f"export {variable}=...")
    return _variables_taken[key]


def with_variables(work: Workload, held: Held) -> Workload:
    """Return a workload for one start: its own variables replace those of the files. It must not be recorded."""
    return work._replace(env={**held.env, **work.env})


def keep(held: Held) -> int:
    """Return the descriptor of a new file in memory with the values; it cannot be changed."""
    files = {name: b2a_base64(content, newline=False).decode() for name, content in held.files.items()}
    text = json.dumps(records.versioned({"env": dict(held.env), "files": files}))
    return in_memory(text.encode())


def in_memory(content: bytes) -> int:
    """Return the descriptor of a new file in memory that cannot be changed."""
    fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        written = 0
        while written < len(content):
            written += os.write(fd, content[written:])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    except BaseException:
        os.close(fd)
        raise
    return fd


def record(inst: Instance, pid: int, fd: int) -> None:
    """Record which process holds the values of an instance, and as which descriptor."""
    inst.state.own[_KEY] = {"pid": pid, "start": processes.start_time(pid), "fd": fd}


def of(inst: Instance) -> Held:
    """Return the values of a running instance. Raises StateError."""
    try:
        place = inst.state.own[_KEY]
        pid, start, fd = int(place["pid"]), place["start"], int(place["fd"])
        path = f"/proc/{pid}/fd/{fd}"
        if not processes.alive(pid, start) or not os.readlink(path).startswith(f"/memfd:{_NAME}"):
            raise ValueError
        with open(path, "rb") as file:
            return _parsed(file.read())
    except (OSError, ValueError, TypeError, LookupError, records.UnreadableError):
        raise StateError(
            f"the variables and secrets of {inst.name} cannot be read: the process that holds them was killed",
            hint=f"`vmctl restart {inst.name}`",
        ) from None


def inherit(fd: int) -> None:
    """Use the values in a descriptor that this process has inherited for its next start."""
    _inherited[:] = [_parsed(os.pread(fd, os.fstat(fd).st_size, 0))]


def _parsed(content: bytes) -> Held:
    values = records.checked_format(records.parse(content, "held"), "held")
    return Held(values["env"], {name: a2b_base64(text) for name, text in values["files"].items()})
