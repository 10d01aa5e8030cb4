"""Run a Command in a guest: through our agent, or over SSH if the guest's init is not ours."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from functools import partial

from images.store import store
from images.store.image import Process, process
from vmctl.attach import session
from vmctl.backend import Command
from vmctl.console import visible
from vmctl.copying.child import in_child
from vmctl.errors import CommandNotExecutableError, CommandNotFoundError, DeadlineError, StateError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import processes, terminal
from vmm import agent, boot, files, keys, marks, receipt, seed, watch, wayin

QEMU_END_S = 2.0
_BACKGROUND = " 3>&1 4>&1 </dev/null >/dev/null 2>&1"  # `launch` reports through 3 and 4, and the command has neither
LINE_BYTES = 32_000  # a longer command goes through its input: sshd and the kernel limit the length of a line
SYSTEM_TIMEOUT_S = 900.0


def execute(inst: Instance, command: Command, *, tool: bool = False) -> int:
    """Run a command in the guest on this process's standard streams and return its exit code. Raises VmctlError.

    `tool`: its program is one of busybox in the initramfs, if the guest has our agent, and not one of the image.
    """
    if inst.state.boot == boot.DIRECT:
        return _by_agent(inst, command, tool=tool)
    return _by_ssh(inst, command)


def _by_agent(inst: Instance, command: Command, *, tool: bool) -> int:
    main = _settings(inst, command)
    flags = agent.flags(tty=command.tty, stdin=command.stdin and not command.detach) + agent.TOOL * tool
    request = agent.request(command.argv, main.env, main.workdir, main.user, flags, terminal.size(0))
    try:
        guest = agent.Guest(
            name=inst.name,
            path=files.agent(inst),
            boots=lambda: "network" not in marks.lines(inst),
            place=partial(receipt.check_command, inst),
        )
        if command.detach:
            return agent.begin(guest, request)
        return agent.execute(guest, request, flags, command.detach_keys)
    except session.GoneError as error:
        raise _explained(inst, error) from None


def _explained(inst: Instance, error: VmctlError) -> VmctlError:
    """Return why the connection with the agent has ended: QEMU closes it a moment before it ends."""
    deadline = time.monotonic() + QEMU_END_S
    while processes.alive(inst.state.pid, inst.state.pid_start):
        if time.monotonic() > deadline:
            return VmctlError(str(error), hint=f"`vmctl logs --boot {inst.name}` shows the guest's console")
        time.sleep(0.005)
    return watch.command_lost(inst.name)


def _by_ssh(inst: Instance, command: Command) -> int:
    from vmm import ssh

    if inst.state.address is None:
        raise StateError(f"{inst.name} has no network, but exec needs it for SSH", hint="use `network: bridge`")
    _wait_for_sshd(inst)
    guest = ssh.Guest(
        name=inst.name,
        address=inst.state.address,
        port=inst.state.own.get(wayin.SSH_PORT, ssh.PORT),
        client_key=files.client_key(inst),
        host_public=keys.load_or_make(files.host_key(inst)).public,
        runs=lambda: processes.alive(inst.state.pid, inst.state.pid_start),
    )
    main = _settings(inst, command)
    words = seed.workload_words(command.argv, main.env, main.workdir, main.user)
    line, first = _line(words, command)
    if command.detach:
        return _begin(inst, lambda: ssh.execute(guest, line, tty=False, stdin=False, first=first))
    return ssh.execute(guest, line, tty=command.tty, stdin=command.stdin, first=first)


def _line(words: str, command: Command) -> tuple[str, bytes]:
    """Return the line for the login shell, which is the image's, and what is to be sent to its input first."""
    begin, end = ("setsid -f ", _BACKGROUND) if command.detach else ("", "")
    if len(words) < LINE_BYTES or command.tty:
        return f"exec {begin}env -i {seed.LAUNCH} {words}{end}", b""
    first = words.encode()
    # dd reads no further, which head(1) of busybox does
    read = f"dd bs={len(first)} count=1 iflag=fullblock 2>/dev/null"
    begin = "$0 -f " if command.detach else ""  # that of busybox has no -f
    script = f'words=$({read}) && eval "exec {begin}{seed.LAUNCH} $words{end}"'
    return f'exec env -i {seed.HERE}/sh -c {shlex.quote(script)} "$(command -v setsid)"', first


def _begin(inst: Instance, run: Callable[[], int]) -> int:
    """Run what begins a command in the background, and return 0. Raises the error that `launch` reports."""

    def quietly(fd: int) -> list[str]:
        os.dup2(fd, 1)
        run()
        return []

    with in_child(quietly, reads=False) as (fd, _):
        answer = os.read(fd, 2048).decode(errors="replace").strip()
    if answer == "exec":
        return 0
    code, _, text = answer.partition(" ")
    kinds = {"126": CommandNotExecutableError, "127": CommandNotFoundError}
    raise kinds.get(code, VmctlError)(visible(text) or f"{inst.name} did not begin the command")


def _settings(inst: Instance, command: Command) -> Process:
    """Return the command with its settings; empty fields are taken from the workload."""
    image, work = store.find(inst.image), inst.work._replace(command=command.argv)
    if work.env_file:
        from vmctl.keeping import held

        work = held.with_variables(work, held.of(inst))
    main = process(image, work)
    env = {**main.env, **dict(command.env)}
    if command.tty:
        env.setdefault("TERM", os.environ.get("TERM", "dumb"))
    workdir, user = command.workdir or main.workdir, main.user if command.user is None else command.user
    return main._replace(env=env, workdir=workdir, user=user)


def _wait_for_sshd(inst: Instance) -> None:
    """Wait for the socket of sshd; the network may come up a moment later. Raises StateError, DeadlineError."""
    deadline = time.monotonic() + SYSTEM_TIMEOUT_S
    while not marks.has(inst, "system"):
        if watch.ended(inst) is not None:
            raise StateError(f"{inst.name} has exited", hint=f"`vmctl logs {inst.name}` shows its output")
        if time.monotonic() > deadline:
            raise DeadlineError(f"the guest {inst.name} did not start sshd in time", detail=watch.console_tail(inst))
        time.sleep(0.005)
