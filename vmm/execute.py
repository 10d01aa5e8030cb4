"""From a command of the contract to a line for the guest's sshd."""

from __future__ import annotations

import os
import time

from images.store import store
from images.store.image import process
from vmctl.backend import Command
from vmctl.errors import DeadlineError, StateError
from vmctl.instance import Instance
from vmm import boot, files, keys, seed, ssh, watch

SSHD_TIMEOUT_S = 30.0
SYSTEM_TIMEOUT_S = 900.0


def execute(inst: Instance, command: Command) -> int:
    """Run a command in the guest on this process's standard streams and return its exit code. Raises VmctlError."""
    if inst.state.address is None:
        raise StateError(f"{inst.name} has no network, and exec reaches a guest over SSH", hint="use `network: bridge`")
    _wait_for_sshd(inst)
    guest = ssh.Guest(
        name=inst.name,
        address=inst.state.address,
        client_key=files.client_key(inst),
        host_public=keys.load_or_make(files.host_key(inst)).public,
    )
    line = words(inst, command)
    if inst.state.boot != boot.DIRECT:  # there the login shell is ours, here it is the image's
        line = f"exec env -i {seed.LAUNCH} {line}"
    return ssh.execute(guest, line, tty=command.tty, stdin=command.stdin)


def words(inst: Instance, command: Command) -> str:
    """Return the command line for the guest; what the command leaves open is as the workload has it."""
    image, work = store.find(inst.state.image_digest or inst.work.image), inst.work._replace(command=command.argv)
    main = process(image, work)
    env = {**main.env, **dict(command.env)}
    if command.tty:
        env.setdefault("TERM", os.environ.get("TERM", "dumb"))
    workdir, user = command.workdir or main.workdir, main.user if command.user is None else command.user
    return seed.workload_words(command.argv, env, workdir, user)


def _wait_for_sshd(inst: Instance) -> None:
    """Wait: sshd starts behind the workload, so a command right after the start may come too early.

    A system says when it has a network; its sshd comes up a moment later, and connections are tried until then.
    """
    deadline = time.monotonic() + (SSHD_TIMEOUT_S if inst.state.boot == boot.DIRECT else SYSTEM_TIMEOUT_S)
    while not {"ssh", "system"} & set(watch.marks(inst)):
        if watch.ended(inst) is not None:
            raise StateError(f"{inst.name} has ended")
        if time.monotonic() > deadline:
            raise DeadlineError(f"the guest {inst.name} has started no sshd", detail=watch.console_tail(inst))
        time.sleep(0.005)
