"""The parent's side of a start: the process that becomes the container's parent, and its reports."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from time import monotonic_ns

from containers.launch import Launch, Streams, clone
from containers.reports import describe, revive
from containers.watch import EXIT_FILE, ContainerWatch, Outputs, deliver, explained
from vmctl import trace
from vmctl.backend import Attachment, Exit, Watch
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.light import signal
from vmctl.linux import processes
from vmctl.linux.cgroups import Cgroup
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import Link

if TYPE_CHECKING:
    from typing import Any, NoReturn

    from containers.attend import Connection
    from containers.terminals import Channel


_LEAVING_S = 5.0


class Pipe(NamedTuple):
    """pipe(2)."""

    read: int
    write: int


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
        self.report = self._pipe()  # the child's T4, then its error, or end of file once exec has succeeded
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
        self._connection = _connection(launch, attachment) if attachment is not None else None
        self._open: list[int] = [*launch.volume_trees, *([] if launch.tree is None else [launch.tree])]

    def begin(self) -> None:
        """See Start."""
        if self._connection is not None:
            self._connection.started(_start_attached(self.inst, self._launch, self._connection.streams))
        else:
            outputs = _start_detached(self.inst, self._launch)
            self._open += [*outputs.streams, outputs.written]
            self.watch = ContainerWatch(self.inst, outputs)
        self.inst.state.limits = _limits(self.inst, self._launch.cgroup, kept=self._attachment is None)

    def attend(self) -> Exit:
        """See Start."""
        assert self._attachment is not None
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
        while self._open:
            os.close(self._open.pop())

    def __enter__(self) -> ContainerStart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connection(launch: Launch, attachment: Attachment) -> Connection:
    from containers.attend import Connection

    return Connection(Streams(*(attachment.streams or (0, 1, 2))), tty=launch.tty)


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


def _start_detached(inst: Instance, launch: Launch) -> Outputs:
    """Start the container below a supervisor and return the descriptors of its output; the caller closes them.

    Marks T1 and T4 and sets `inst.state.pid`. Raises the error that prevented the start.
    """
    with Pipes() as pipes:
        supervisor = os.fork()
        if supervisor == 0:
            _supervise(inst, launch, pipes)
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
        return Outputs((os.dup(pipes.stdout.read), os.dup(pipes.stderr.read)), os.dup(pipes.written))


def _supervise(inst: Instance, launch: Launch, pipes: Pipes) -> NoReturn:
    """Create the container and become its supervisor."""
    try:
        pipes.close(pipes.recorded.write, pipes.plugged.write, pipes.report.read, pipes.created.read)
        if not os.read(pipes.recorded.read, 1):  # vmctl was killed before it recorded this process in the journal
            os._exit(0)
        os.setsid()
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for pipe in (pipes.stdout, pipes.stderr):
            os.fchmod(pipe.write, 0o622)  # a workload of any user can open /dev/stdout
        streams = Streams(null, pipes.stdout.write, pipes.stderr.write)
        pid = clone(launch, streams, pipes.report.write, pipes.plugged.read)
        os.write(pipes.created.write, f"{pid} {monotonic_ns()}".encode())
        pipes.close(pipes.report.write, pipes.stdout.write, pipes.stderr.write)
        ends = pipes.stdout.read, pipes.stderr.read
        os.read(pipes.recorded.read, 1)  # wait until vmctl closes it, so that exec below does not delay the container
        from containers.supervisor import become_supervisor  # `prepare` has imported it

        logs = inst.stdout_log, inst.stderr_log
        become_supervisor(pid, pipes.written, *ends, *logs, inst.path(EXIT_FILE), inst.work.logs.size_bytes)
    except BaseException as error:
        os.write(pipes.report.write, b"0\n" + describe(error))
    finally:
        os._exit(125)


def _start_attached(inst: Instance, launch: Launch, streams: Streams) -> int | None:
    """Start the container as a child of this process and return its terminal's master, if it has one.

    Marks T1 and T4. Raises the error that prevented the start.
    """
    with ExitStack() as stack:
        channel, pipes = None, stack.enter_context(Pipes())
        if launch.tty:
            from containers.terminals import Channel

            channel = stack.enter_context(Channel())
        pid = clone(launch, streams, pipes.report.write, pipes.plugged.read, channel)
        created_ns = monotonic_ns()
        pipes.close(pipes.report.write)
        try:
            return _await_exec(inst, launch, pid, created_ns, pipes, channel)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise


def _await_exec(
    inst: Instance, launch: Launch, pid: int, created_ns: int, pipes: Pipes, channel: Channel | None = None
) -> int | None:
    inst.state.pid, inst.state.pid_start = pid, processes.start_time(pid)
    if launch.links:
        for link in launch.links:
            _plug(inst, link, pid, pipes)
        with suppress(BrokenPipeError):  # the container has exited meanwhile: the reason is read below
            os.write(pipes.plugged.write, b"p")
    master = channel.receive() if channel is not None else None
    mark, _, error = _read_all(pipes.report.read).partition(b"\n")
    # after clone3 parent and child race: the earlier of them shows that the process exists
    inst.timeline.mark("T1", min(created_ns, int(mark)) if mark else created_ns)
    if error:
        if master is not None:
            os.close(master)
        raise revive(error, inst.name)
    if mark:
        inst.timeline.mark("T4", int(mark))
    return master


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
