"""The recorder of a guest: it copies what the guest writes to its ports and its console to files of bounded size.

QEMU could write these files itself, but without a limit, and if it had a limit, the guest would be stopped there. So
QEMU writes to FIFOs, and the recorder reads them: of each stream the newest bytes are kept, and of the marks the first
ones. On a full disk bytes are lost, but the guest runs on.

It also has the connection to the guest's agent, which all commands share: see vmm/broker.py. And it serves those who
are connected with a workload that has a terminal or an open input: see vmctl/attach/hub.py.

It runs as long as QEMU, which it notices by the end of all FIFOs, and has to be small: a bare interpreter that imports
very little. It ends QEMU if the command that runs the guest in the foreground is gone: see vmm/caller.py.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would import `enum`, 1 MB
import os
import select

from vmctl.linux import madvise
from vmctl.logs.logwriter import FirstBytes, Log
from vmctl.named import NamedTuple
from vmm import broker

TYPE_CHECKING = False  # `typing` would be 1 MB more
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from vmctl.attach.hub import Hub
    from vmctl.keeping.keeper import Keeper
    from vmctl.keeping.runs import Keep
    from vmm.caller import Caller, Tied
    from vmm.sender import Sender
    from vmm.shown import Shown

BLOCK_BYTES = 1 << 16

# (FIFO, file, limit in bytes, whether the first bytes are kept and not the last ones)
Stream = tuple[str, str, int, bool]


class Served(NamedTuple):
    """What the recorder needs to serve callers of the workload: its output is that of the third and fourth stream."""

    folder: str  # for the socket
    stdin: str  # the socket of QEMU's port
    control: str  # the FIFO to the guest's init
    terminal: bool
    owned: bool  # whether the first caller is the owner


def start(
    streams: Sequence[Stream],
    agent: tuple[str, str] | None = None,
    served: Served | None = None,
    keep: Keep | None = None,
    secrets: tuple[int, str] | None = None,
    tied: Tied | None = None,
) -> tuple[int, int]:
    """Start a recorder; return its pid and a descriptor.

    `agent` is, if the guest has one: the path of a new socket for commands, and that of the socket of QEMU's port.
    `keep` is what else it inherits (vmctl/keeping/runs.py), `secrets` a file for the guest's init and the FIFO to it,
    `tied` the guest if it ends with this process.

    The recorder waits until a byte is written to the descriptor, and exits if it is closed before: so it can be
    recorded first. It has opened the FIFOs when this returns.
    """
    # QEMU can open a FIFO without waiting only if there is a reader; and a reader is one even before its process runs
    fds = [os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for fifo, *_ in streams]
    arguments = [""] * 12
    sockets = []
    if agent:
        sockets.append(broker.listen(agent[0]))
        arguments[:2] = str(sockets[-1]), agent[1]
    if served:
        from vmctl.attach import hub

        sockets.append(hub.listen(served.folder, hub.SOCKET))
        ways = served.stdin, served.control, "t" * served.terminal, "o" * served.owned
        arguments[2:7] = str(sockets[-1]), *ways
    if secrets:
        arguments[4], arguments[7] = secrets[1], str(secrets[0])
    if tied:
        sockets.append(os.pidfd_open(os.getpid()))
        arguments[8:12] = str(sockets[-1]), *tied
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            if os.read(wait, 1):
                _become(fds, streams, arguments, [*sockets, *(secrets[:1] if secrets else ())], keep)
        finally:
            os._exit(125)
    for fd in (wait, *fds, *sockets):
        os.close(fd)
    return pid, go


def _become(
    fds: Sequence[int], streams: Sequence[Stream], arguments: list[str], more: Sequence[int], keep: Keep | None
) -> NoReturn:
    os.setsid()
    os.chdir("/")
    from vmctl.linux.interpreter import become  # the recorder itself does not need it

    for fd, (_, path, limit, first) in zip(fds, streams, strict=True):
        arguments += [str(fd), path, str(limit), "first" if first else "last"]
    environment: Mapping[str, str] = {}
    if keep is not None:
        from vmctl.keeping import runs

        runs.hold_back()
        environment, more = keep.environment, [*more, *([keep.held] if keep.held >= 0 else [])]
    become("vmm.recorder", (*fds, *more), arguments, environment)


def main(
    listener: str,
    port: str,
    callers: str,
    stdin: str,
    control: str,
    terminal: str,
    owned: str,
    secrets: str,
    *arguments: str,
) -> None:
    """Copy streams to files until QEMU has closed all of them; serve commands at `listener` and callers at `callers`.

    `secrets` is a descriptor with the text that the guest's init gets at `control`. `_caller` needs four `arguments`.
    """
    os.umask(0o077)
    for signum in (_signal.SIGINT, _signal.SIGHUP, _signal.SIGTERM):  # it exits only after QEMU
        _signal.signal(signum, _signal.SIG_IGN)
    logs: dict[int, FirstBytes | Log] = {}
    poller = select.poll()
    for number, path, limit, kept in zip(*(iter(arguments[4:]),) * 4, strict=True):
        logs[int(number)] = FirstBytes(path, int(limit)) if kept == "first" else Log(path, int(limit) // 2)
        poller.register(int(number), select.POLLIN)
    agent = broker.Broker(poller, int(listener), port) if listener else None
    caller = _caller(poller, *arguments[:4])
    shown = _shown(poller, callers, list(logs)[2:4], stdin, control, terminal, caller if owned else None)
    hub = shown.hub if shown is not None else None
    keeper, sender = _keeper(poller), _sender(poller, secrets, control)
    madvise.drop_clean_pages()
    while logs:
        ready = dict(poller.poll(_wait_ms(hub, keeper, caller)))
        if keeper is not None:
            keeper.handle(ready)
        for fd, events in ready.items():
            if sender is not None and fd == sender.fd:
                sender.send()
            elif fd not in logs:
                if agent is not None:
                    agent.handle(fd, events)  # it ignores those of others
            elif data := os.read(fd, BLOCK_BYTES):
                logs[fd].write(data)
                if agent is not None:
                    agent.connect()
                if shown is not None:
                    shown.show(fd, data)
                if sender is not None and isinstance(logs[fd], FirstBytes):
                    sender.look(data)
            else:  # QEMU, the only writer, has exited
                poller.unregister(fd)
                logs.pop(fd).finish()
        if shown is not None:
            shown.handle(ready)
        if caller is not None and caller.handle(ready, hub) and not ready:
            break  # there is no QEMU, and none of its words is left
    for log in logs.values():
        log.finish()
    if hub is not None:
        hub.finish()
    if keeper is not None:
        keeper.ended()


def _keeper(poller: select.poll) -> Keeper | None:
    """Return what checks and restarts the workload; None if it needs neither."""
    if "VMCTL_KEEP" not in os.environ:
        return None
    from vmctl.keeping.keeper import Keeper

    return Keeper(poller)


def _caller(poller: select.poll, pidfd: str, *guest: str) -> Caller | None:
    """Return the command with which the guest ends, from its pidfd and a `Tied`; None if it runs in the background."""
    if not pidfd:
        return None
    from vmm.caller import Caller, Tied

    return Caller(poller, int(pidfd), Tied(*guest))


def _shown(
    poller: select.poll,
    listener: str,
    outputs: Sequence[int],
    stdin: str,
    control: str,
    terminal: str,
    owner: Caller | None,
) -> Shown | None:
    """Return what serves callers of the workload; None if it has neither a terminal nor an open input."""
    if not listener:
        return None
    from vmm.shown import Shown

    hang_up = owner.hang_up if owner is not None else None
    return Shown(poller, int(listener), outputs, stdin, control, terminal=bool(terminal), hang_up=hang_up)


def _sender(poller: select.poll, secrets: str, control: str) -> Sender | None:
    if not secrets:
        return None
    from vmm.sender import Sender

    return Sender(poller, int(secrets), control)


def _wait_ms(*parts: Hub | Keeper | Caller | None) -> float | None:
    """Return how long to wait for descriptors: as long as each of the parts may wait, None without limit."""
    limits = [limit for part in parts if part is not None and (limit := part.wait_ms()) is not None]
    return min(limits) if limits else None
