"""Run another process in a running container: join its cgroup and namespaces, then exec, like nsenter(1)."""

from __future__ import annotations

import os
import signal

from containers import identity
from containers.launch import Launch, Streams, describe, execute, redirect, revive
from containers.terminals import open_terminal, own_terminal
from vmctl import trace
from vmctl.backend import Command
from vmctl.instance import Instance
from vmctl.linux import processes, syscalls, terminal
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


def run(inst: Instance, launch: Launch, command: Command) -> int:
    """Run the command on this process's streams, or on a terminal of the container, and return its exit code."""
    if not command.tty:
        stdin = 0 if command.stdin else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        pid = spawn(inst, launch, command, Streams(stdin, 1, 2))
        return processes.exit_code(os.waitpid(pid, 0)[1])
    # from the container's devpts: tty(1) inside finds it, and no process inside has the user's terminal open
    assert inst.state.pid is not None
    master, slave = open_terminal(launch, inst.state.pid)
    pid = spawn(inst, launch, command, slave)
    terminal.relay(master)
    return processes.exit_code(os.waitpid(pid, 0)[1])


def spawn(inst: Instance, launch: Launch, command: Command, streams: Streams | str) -> int:
    """Start the command as a child of this process and return its pid. Raises the error that prevented exec.

    If `streams` is a path, the command becomes the leader of a new session with that terminal of the container.
    """
    assert inst.state.pid is not None
    container = os.pidfd_open(inst.state.pid)
    root = os.open(f"/proc/{inst.state.pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parent = os.pidfd_open(os.getpid())
    report_read, report_write = os.pipe()
    cgroup_fd = launch.cgroup.open_for_clone()
    try:
        if trace.on:
            from vmctl.linux import commands

            trace.step(commands.nsenter(inst.state.pid, launch.namespaces), "setns, clone3, and in the new process:")
        # setns(2) does not move the caller into a pid namespace, only its next child
        if launch.namespaces & syscalls.CLONE_NEWPID:
            syscalls.setns(container, syscalls.CLONE_NEWPID)
        pid = syscalls.clone3(0, exit_signal=signal.SIGCHLD, cgroup_fd=cgroup_fd)
        if pid == 0:
            if cgroup_fd is None:
                launch.cgroup.join()
            _child(launch, command, streams, container, root, parent, report_write)
        os.close(report_write)
        with os.fdopen(report_read, "rb") as file:
            error = file.read()
    finally:
        for fd in (container, root, parent, cgroup_fd):
            if fd is not None:
                os.close(fd)
    if error:
        os.waitpid(pid, 0)
        raise revive(error, inst.name)
    return pid


def _child(
    launch: Launch, command: Command, streams: Streams | str, container: int, root: int, parent: int, report: int
) -> NoReturn:
    try:
        # until exec; else processes inside could reach this interpreter's file and memory through /proc (ptrace(2))
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        others = launch.namespaces & ~syscalls.CLONE_NEWPID
        if others:
            syscalls.setns(container, others)
        if launch.first_id is not None:
            identity.become_root()
        if not launch.namespaces & syscalls.CLONE_NEWNS:
            os.fchdir(root)
            os.chroot(".")
        os.umask(0o022)
        process = launch.process._replace(
            argv=command.argv,
            env={**launch.process.env, **dict(command.env)},
            workdir=command.workdir or launch.process.workdir,
        )
        redirect(own_terminal(streams) if isinstance(streams, str) else streams)
        user = identity.find_user(command.user or launch.process.user)
        execute(process, user, launch.capabilities, launch.seccomp, parent)
    except BaseException as error:
        os.write(report, describe(error))
    finally:
        os._exit(125)
