"""Run another process in a running container: join its cgroup and namespaces, then exec, like nsenter(1)."""

from __future__ import annotations

import os
from functools import partial

from containers import identity, imagepath
from containers.attend import Connection
from containers.launch import Launch, Streams, enter_folder, execute, redirect
from containers.reports import check_joined, describe, namespaces, own_namespaces, revive
from vmctl import trace
from vmctl.backend import Command
from vmctl.instances.instance import Instance
from vmctl.light import signal
from vmctl.linux import processes, syscalls
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from containers.terminals import Channel


def run(inst: Instance, launch: Launch, command: Command) -> int:
    """Run the command on this process's streams, or on a terminal of the container, and return its exit code."""
    if command.tty or command.detach:
        from containers import parent

        return (parent.leave if command.detach else parent.run)(inst, launch, command)
    stdin = 0 if command.stdin else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    with Connection(Streams(stdin, 1, 2)) as connection:
        pid, _ = spawn(inst, launch, command, connection.streams)
        connection.started()
        return processes.exit_code(connection.attend(pid, partial(os.kill, pid)))


def spawn(
    inst: Instance, launch: Launch, command: Command, streams: Streams, channel: Channel | None = None
) -> tuple[int, int | None]:
    """Start the command as a child of this process. Return its pid and, with a channel, the master of its terminal.

    Raises the error that prevented exec.
    """
    assert inst.state.pid is not None
    if launch.process.ulimits:
        from containers import ulimits

        ulimits.raise_hard(launch.process.ulimits)
    container = os.pidfd_open(inst.state.pid)
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
        # inherited, until exec; else processes inside could reach the new process's descriptors, memory and interpreter
        # through /proc (ptrace(2), CVE-2016-9962)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        pid = syscalls.clone3(0, exit_signal=signal.SIGCHLD, cgroup_fd=cgroup_fd)
        if pid == 0:
            if cgroup_fd is None:
                launch.cgroup.join()
            recorded = inst.state.receipt.get("namespaces", {})
            _child(launch, command, streams, channel, container, parent, report_write, recorded)
        os.close(report_write)
        master = channel.receive() if channel is not None else None
        with os.fdopen(report_read, "rb") as file:
            error = file.read()
    finally:
        for fd in (container, parent, cgroup_fd):
            if fd is not None:
                os.close(fd)
    if error:
        os.waitpid(pid, 0)
        if master is not None:
            os.close(master)
        raise revive(error, inst.name, "could not run the command")
    return pid, master


def join(launch: Launch, container: int, namespaces: int) -> None:
    """Enter namespaces of a running container by its pidfd, and its root: of its user namespace, or its root folder."""
    if namespaces:
        syscalls.setns(container, namespaces)
    if launch.first_id is not None:
        identity.become_root()
    if not launch.namespaces & syscalls.CLONE_NEWNS:
        os.chroot(launch.root.target)
        os.chdir("/")


def _child(
    launch: Launch,
    command: Command,
    streams: Streams,
    channel: Channel | None,
    container: int,
    parent: int,
    report: int,
    recorded: Mapping[str, int],
) -> NoReturn:
    try:
        own = own_namespaces()
        os.setsid()  # see launch
        imagepath.import_nothing()
        join(launch, container, launch.namespaces & ~syscalls.CLONE_NEWPID)
        check_joined(namespaces(own), recorded, launch.namespaces)
        os.umask(0o022)
        process = launch.process._replace(
            argv=command.argv,
            env={**launch.process.env, **dict(command.env)},
            workdir=command.workdir or launch.process.workdir,
        )
        user = identity.find_user(command.user or launch.process.user)
        redirect(channel.own_terminal(user.uid) if channel is not None else streams)
        enter_folder(imagepath.existing_folder(process.workdir))
        execute(process, user, launch.capabilities, launch.seccomp, parent)
    except BaseException as error:
        os.write(report, describe(error))
    finally:
        os._exit(125)
