"""One health check of an instance: `python -m vmctl.keeping.check NAME ID`, started by the `Keeper`.

It exits with 0 if the check succeeds. Its output is that of the check, which the keeper records.
"""

from __future__ import annotations

import os
import sys

from vmctl import backends, engine, private
from vmctl.backend import Command
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.keeping.keeper import NOT_YET
from vmctl.light import signal
from vmctl.linux import syscalls
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_FAILED = 1


def main(name: str, identity: str) -> int:
    """Check the instance and return the exit code."""
    private.set_umask()
    parent = os.getppid()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # the keeper is killed with the instance
    if os.getppid() != parent:
        return _FAILED
    try:
        return _checked(instance.load(name), identity)
    except (VmctlError, OSError) as error:
        os.write(2, f"{error}\n".encode())
        return getattr(error, "exit_code", _FAILED) or _FAILED


def _checked(inst: Instance, identity: str) -> int:
    backend = backends.load(inst.state.mode, inst.state.options)
    if inst.is_paused():
        return NOT_YET
    if inst.id != identity or engine.status(inst, backend) != "running" or not backend.watch(inst).settled():
        return NOT_YET
    check: dict[str, Any] = inst.state.health
    if "exec" in check:
        code = engine.exec_command(inst, Command(tuple(check["exec"]), stdin=False))
        return _FAILED if code == NOT_YET else code
    return _FAILED if (text := _reached(inst, check)) and _say(text) else 0


def _say(text: str) -> bool:
    return bool(os.write(1, f"{text}\n".encode()))


def _reached(inst: Instance, check: dict[str, Any]) -> str:
    """Return "" if the port of a check answers as it should, else what it does. Raises OSError."""
    from vmctl import httpanswer
    from vmctl.net.connect import connect

    port, page = check["http"] if "http" in check else (check["tcp"], None)
    address = inst.state.address or "127.0.0.1"
    with connect(address, port, check["timeout_s"]) as connection:
        if page is None:
            return ""
        connection.sendall(httpanswer.request(address, port, page))
        status = httpanswer.status(httpanswer.first_line(connection))
        httpanswer.drain(connection)
    if status is None:
        return f"port {port} answers something else than HTTP"
    return "" if status < 400 else f"port {port} answers with status {status}"


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:3]))  # without the clean-up of the interpreter, which takes 10 ms
