"""Turn a Command into a line for the guest's sshd, and run it."""

from __future__ import annotations

import os
import time

from images.store import store
from images.store.image import process
from vmctl.backend import Command
from vmctl.errors import DeadlineError, StateError
from vmctl.instances.instance import Instance
from vmm import boot, files, keys, seed, ssh, watch

SSHD_TIMEOUT_S = 30.0
SYSTEM_TIMEOUT_S = 900.0


def execute(inst: Instance, command: Command) -> int:
    """Run a command in the guest on this process's standard streams and return its exit code. Raises VmctlError."""
    if inst.state.address is None:
        raise StateError(f"{inst.name} has no network, but exec needs it for SSH", hint="use `network: bridge`")
    _wait_for_sshd(inst)
    guest = ssh.Guest(
        name=inst.name,
        address=inst.state.address,
        client_key=files.client_key(inst),
        host_public=keys.load_or_make(files.host_key(inst)).public,
    )
    line = words(inst, command)
    if inst.state.boot != boot.DIRECT:  # the login shell is then the image's, not ours
        line = f"exec env -i {seed.LAUNCH} {line}"
    return ssh.execute(guest, line, tty=command.tty, stdin=command.stdin)


def words(inst: Instance, command: Command) -> str:
    """Return the command line for the guest; empty fields of the command are taken from the workload."""
    image, work = store.find(inst.state.image_digest or inst.work.image), inst.work._replace(command=command.argv)
    main = process(image, work)
    env = {**main.env, **dict(command.env)}
    if command.tty:
        env.setdefault("TERM", os.environ.get("TERM", "dumb"))
    workdir, user = command.workdir or main.workdir, main.user if command.user is None else command.user
    return seed.workload_words(command.argv, env, workdir, user)


def _wait_for_sshd(inst: Instance) -> None:
    """Wait for sshd, which starts after the workload. Raises StateError, DeadlineError.

    A system reports when its network is up. Its sshd starts a moment later; connections are tried until then.
    """
    deadline = time.monotonic() + (SSHD_TIMEOUT_S if inst.state.boot == boot.DIRECT else SYSTEM_TIMEOUT_S)
    while not {"ssh", "system"} & set(watch.marks(inst)):
        if watch.ended(inst) is not None:
            raise StateError(f"{inst.name} has exited", hint=f"`vmctl logs {inst.name}` shows its output")
        if time.monotonic() > deadline:
            raise DeadlineError(f"the guest {inst.name} did not start sshd in time", detail=watch.console_tail(inst))
        time.sleep(0.005)
