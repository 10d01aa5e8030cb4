"""The parent's side of a start: the process that becomes the container's parent, and its reports."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext, suppress
from time import monotonic_ns

from containers.launch import Launch, Streams, clone
from containers.reports import check_start, describe, revive, take_receipt
from containers.watch import EXIT_FILE, ContainerWatch, Outputs, deliver, explained
from vmctl import trace
from vmctl.backend import Attachment, Exit, Watch
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.light import signal
from vmctl.linux import processes, syscalls
from vmctl.linux.cgroups import Cgroup
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import Link

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractContextManager
    from typing import Any, NoReturn

    from containers.attend import Connection
    from containers.terminals import Channel


_LEAVING_S = 5.0


class Pipe(NamedTuple):
    """pipe(2)."""

    read: int
    write: int


class Ends(NamedTuple):
    """The supervisor's ends of a workload's streams; -1: it is missing."""

    stdout: int
    stderr: int
    stdin: int


class Pipes:
    """The pipes of one start, and an eventfd; those still open are closed at the end of the `with` block."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        try:
            self._make()
        except BaseException:  # no more descriptors; those that there are, the removal needs
            self.close(*self._open)
            raise

    def _make(self) -> None:
        self.report = self._pipe()  # the child's T4, its namespaces, its error; end of file once exec has succeeded
        self.plugged = self._pipe()  # a byte when the network is connected
        self.recorded = self._pipe()  # a byte when the supervisor is in the journal
        self.created = self._pipe()  # the child's pid and its time of creation
        self.stdout = self._pipe()
        self.stderr = self._pipe()
        self.written = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # written by the supervisor, see Outputs
        self._open.add(self.written)

    def _pipe(self) -> Pipe:
        pipe = Pipe(*os.pipe())
        self._open.update(pipe)
        return pipe

    def close(self, *fds: int) -> None:
        """Close these descriptors now."""
        for fd in fds:
            self._open.remove(fd)
            os.close(fd)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(*self._open)


class ContainerStart:
    """See vmctl.backend.Start: the launch of a container, and this process's descriptors for it."""

    def __init__(self, inst: Instance, launch: Launch, attachment: Attachment | None) -> None:
        self.inst = inst
        self.watch: Watch = ContainerWatch(inst)
        self._launch = launch
        self._attachment = attachment
        self._connection = None if attachment is None or attachment.tty else _connection(attachment)
        self._caller: socket.socket | None = None  # of an attached workload with a terminal
        held = launch.keep.held if launch.keep is not None else -1
        mounts = (*launch.volume_trees, launch.joins, -1 if launch.tree is None else launch.tree)
        self._open: list[int] = [fd for fd in (*mounts, held) if fd >= 0]

    def begin(self) -> None:
        """See Start."""
        if self._connection is not None:
            _start_attached(self.inst, self._launch, self._connection.streams)
            self._connection.started()
        else:
            hub = self._listen()
            outputs = _start_detached(self.inst, self._launch, hub, owned=self._caller is not None)
            self._open += [*outputs.streams, outputs.written]
            self.watch = ContainerWatch(self.inst, outputs)
        if self._launch.keep is not None and self._launch.keep.held >= 0:
            from vmctl.keeping import held

            held.record(self.inst, self.inst.state.supervisor_pid or os.getpid(), self._launch.keep.held)
        self.inst.state.limits = _limits(self.inst, self._launch.cgroup, kept=self._connection is None)

    def _listen(self) -> int:
        """Return a socket for callers, or -1; an owner is connected with it from now on."""
        if not (self._launch.tty or self.inst.work.stdin_open):
            return -1
        from vmctl.attach import hub

        listener = hub.listen(self.inst.run_dir, hub.SOCKET)
        self._open.append(listener)
        if self._attachment is not None:
            from vmctl.attach import front

            self._caller = front.connect(self.inst.run_dir)
        return listener

    def attend(self) -> Exit:
        """See Start."""
        assert self._attachment is not None
        if self._caller is not None:
            from vmctl.attach import front

            return front.own(self.watch, self._caller, self._attachment, self._pass_on)
        assert self._connection is not None
        assert self.inst.state.pid is not None
        # with other streams than those of this process, its signals are its own
        send = self._pass_on if self._attachment.streams is None else None
        status = self._connection.attend(self.inst.state.pid, send)
        source = "signal" if os.WIFSIGNALED(status) else "workload"
        return explained(self.inst, Exit(processes.exit_code(status), source))

    def _pass_on(self, signum: int) -> None:
        """Send a signal that this process has got to the workload; SIGTERM is the request to stop."""
        deliver(self.inst, self.inst.state.stop_signal if signum == signal.SIGTERM else signum)

    def close(self) -> None:
        """See Start."""
        if self._connection is not None:
            self._connection.close()
        if self._caller is not None:
            self._caller.close()
        while self._open:
            os.close(self._open.pop())

    def __enter__(self) -> ContainerStart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connection(attachment: Attachment) -> Connection:
    from containers.attend import Connection

    return Connection(Streams(*(attachment.streams or (0, 1, 2))))


def _limits(inst: Instance, cgroup: Cgroup, *, kept: bool) -> dict[str, Any]:
    """Return the limits in effect, with the keys of `State.limits`; `kept`: its output goes to logs.

    Raises VmctlError if the workload is not in its group.
    """
    pid = inst.state.pid or 0
    deadline_s = time.monotonic() + _LEAVING_S
    while not cgroup.has(pid) and processes.alive(pid, inst.state.pid_start):  # it may have ended already
        if time.monotonic() > deadline_s:  # a process that is ending leaves its group a moment earlier
            raise VmctlError(f"{inst.name} is not in its control group, so its limits have no effect")
        time.sleep(0.001)
    log_bytes = inst.work.logs.size_bytes if kept else None
    disk_bytes = None
    if inst.work.resources.disk_bytes is not None:
        from containers import disk

        disk_bytes = disk.size_bytes(inst)
    return {**cgroup.granted()._asdict(), "disk_bytes": disk_bytes, "log_bytes": log_bytes}


def _start_detached(inst: Instance, launch: Launch, listener: int, *, owned: bool) -> Outputs:
    """Start the container below a supervisor and return the descriptors of its output; the caller closes them.

    The supervisor serves callers at the socket `listener`; `owned`: the first is the owner (vmctl/attach/hub.py).
    Marks T1 and T4 and sets `inst.state.pid`. Raises the error that prevented the start.
    """
    with Pipes() as pipes:
        supervisor = os.fork()
        if supervisor == 0:
            _supervise(inst, launch, pipes, listener, owned=owned)
        if trace.on:
            trace.comment(f"fork: process {supervisor} becomes the supervisor")
        inst.state.supervisor_pid, inst.state.supervisor_start = supervisor, processes.start_time(supervisor)
        inst.journal.record_process(supervisor, inst.state.supervisor_start, "supervisor")
        pipes.close(pipes.report.write, pipes.created.write, pipes.recorded.read, pipes.plugged.read)
        os.write(pipes.recorded.write, b"r")
        created = os.read(pipes.created.read, 64).split()
        if not created:
            raise revive(_read_all(pipes.report.read).partition(b"\n")[2], inst.name)
        _await_exec(inst, launch, int(created[0]), int(created[1]), pipes)
        streams = () if launch.tty else (os.dup(pipes.stdout.read), os.dup(pipes.stderr.read))
        return Outputs(streams, os.dup(pipes.written))


def _supervise(inst: Instance, launch: Launch, pipes: Pipes, listener: int, *, owned: bool) -> NoReturn:
    """Create the container and become its supervisor."""
    try:
        pipes.close(pipes.recorded.write, pipes.plugged.write, pipes.report.read, pipes.created.read)
        if not os.read(pipes.recorded.read, 1):  # vmctl was killed before it recorded this process in the journal
            os._exit(0)
        os.setsid()
        os.chdir("/")
        streams, ends = _streams(launch, pipes, takes_input=listener >= 0)
        with _channel(launch) as channel:
            pid = clone(launch, streams, pipes.report.write, pipes.plugged.read, channel)
            os.write(pipes.created.write, f"{pid} {monotonic_ns()}".encode())
            pipes.close(pipes.report.write, pipes.stdout.write, pipes.stderr.write)
            if channel is not None:
                ends = _ends(channel.receive())
        if launch.keep is not None:
            from vmctl.keeping import runs

            runs.hold_back()
        os.read(pipes.recorded.read, 1)  # wait until vmctl closes it, so that exec below does not delay the container
        from containers.supervisor import become_supervisor  # `prepare` has imported it

        logs, log_bytes = (inst.stdout_log, inst.stderr_log), inst.work.logs.size_bytes
        served = None if listener < 0 else (listener, ends.stdin, launch.tty, owned)
        become_supervisor(pid, pipes.written, *ends[:2], *logs, inst.path(EXIT_FILE), log_bytes, served, launch.keep)
    except BaseException as error:
        os.write(pipes.report.write, b"0\n" + describe(error))
    finally:
        os._exit(125)


def _streams(launch: Launch, pipes: Pipes, *, takes_input: bool) -> tuple[Streams, Ends]:
    """Return the streams of a workload, and the supervisor's ends of them, which a terminal replaces."""
    stdin, target = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), -1
    if takes_input and not launch.tty:
        stdin, target = os.pipe()
        os.fchmod(stdin, 0o644)  # a workload of any user can open /dev/stdin
    for pipe in (pipes.stdout, pipes.stderr):
        os.fchmod(pipe.write, 0o622)  # and /dev/stdout
    ends = Ends(pipes.stdout.read, pipes.stderr.read, target)
    return Streams(stdin, pipes.stdout.write, pipes.stderr.write), ends


def _ends(master: int | None) -> Ends:
    if master is None:  # the workload was not started, and vmctl reads why
        os._exit(125)
    return Ends(master, -1, os.dup(master))


def _channel(launch: Launch) -> AbstractContextManager[Channel | None]:
    """Return the way of a terminal from the container, if it gets one."""
    if not launch.tty:
        return nullcontext()
    from containers.terminals import Channel

    return Channel()


def _start_attached(inst: Instance, launch: Launch, streams: Streams) -> None:
    """Start the container as a child of this process.

    Marks T1 and T4. Raises the error that prevented the start.
    """
    with Pipes() as pipes:
        pid = clone(launch, streams, pipes.report.write, pipes.plugged.read)
        created_ns = monotonic_ns()
        pipes.close(pipes.report.write)
        try:
            _await_exec(inst, launch, pid, created_ns, pipes)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise


def _await_exec(inst: Instance, launch: Launch, pid: int, created_ns: int, pipes: Pipes) -> None:
    inst.state.pid, inst.state.pid_start = pid, processes.start_time(pid)
    if launch.links:
        for link in launch.links:
            _plug(inst, link, pid, pipes)
        with suppress(BrokenPipeError):  # the container has exited meanwhile: the reason is read below
            os.write(pipes.plugged.write, b"p")
    mark, _, rest = _read_all(pipes.report.read).partition(b"\n")
    executed_ns = monotonic_ns()
    found, ended_ns, error = take_receipt(rest)
    # after clone3 parent and child race: the earlier of them shows that the process exists
    inst.timeline.mark("T1", min(created_ns, int(mark)) if mark else created_ns)
    if error:
        raise revive(error, inst.name)
    if mark:
        for name, at_ns in {"T4": int(mark), "clone": int(mark), **ended_ns, "exec": executed_ns}.items():
            inst.timeline.mark(name, at_ns)
    check_start(inst.name, found, launch.namespaces | (syscalls.CLONE_NEWNET if launch.joins >= 0 else 0))
    inst.state.receipt = {"kernel": os.uname().release, "namespaces": found}


def _plug(inst: Instance, link: Link, pid: int, pipes: Pipes) -> None:
    """Connect the container to the network; if it has exited meanwhile, raise the error that it reported."""
    try:
        link.network.plug(link, pid)
    except VmctlError:
        processes.send(pid, inst.state.pid_start, signal.SIGKILL)
        error = _read_all(pipes.report.read).partition(b"\n")[2]
        if error:
            raise revive(error, inst.name) from None
        raise


def _read_all(fd: int) -> bytes:
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks)
