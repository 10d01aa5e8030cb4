"""The start of a guest that begins with the memory of a saved one, under another identity."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from images.kernels import booted
from vmctl.backend import Attachment
from vmctl.errors import BeginAgainError, DeadlineError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux.events import LOOK_S
from vmctl.net import Link
from vmm import control, files, marks, monitor, watch
from vmm.confinement import Cell
from vmm.domain import Machine
from vmm.launcher import Launcher
from vmm.saved import adoption, templates
from vmm.saved.origin import RESTORED, Origin
from vmm.saved.saving import DEVICES
from vmm.start import GuestStart

_LOAD_S, _ADOPT_S = 60.0, 60.0  # an emulated guest on a busy host
_LOOK_S = 0.001


class SavedStart(GuestStart):
    """See vmctl.backend.Start. Until the guest has its own addresses, the switch drops its frames (vmctl/net/guard.py).

    A tap that is down meanwhile would be up for the bridge only a second later (net/core/link_watch.c of Linux).
    """

    def __init__(
        self,
        inst: Instance,
        machine: Machine,
        cell: Cell | None,
        launcher: Launcher,
        attachment: Attachment | None,
        *,
        origin: Origin,
        links: Sequence[Link],
        may_boot: bool = False,
    ) -> None:
        """With `may_boot`, a template that cannot be used is an error after which the guest is to be booted."""
        super().__init__(inst, machine, cell, launcher, attachment)
        self._origin, self._may_boot = origin, may_boot
        self._identity = self._asked(links)

    def _asked(self, links: Sequence[Link]) -> bytes:
        """Return what makes the guest another one."""
        if self._origin.own_files:
            return adoption.identity(self.inst, links, self._origin.macs)
        return adoption.addresses(links, self._origin.macs)

    def begin(self) -> None:
        """See Start: starts QEMU, which loads the state of the devices, and waits until the guest has its identity."""
        inst = self.inst
        super().begin()
        inst.state.own[RESTORED] = self._origin.facts["machine"]
        try:
            with monitor.conversation(inst, _LOAD_S) as qemu:
                self._load_memory(qemu)
                if self._origin.own_files:
                    self._connect_agent(qemu)
                self._load(qemu)
                tell(inst, b"adopt", adoption.fresh() + self._identity)
                self._before_it_runs()
                qemu.ask("cont")
            await_mark(inst, "adopted", _ADOPT_S)
        except VmctlError as error:
            if not self._origin.own_files:  # the next start makes another one
                booted.remove(self._origin.folder)
                if self._may_boot:
                    raise BeginAgainError(f"{inst.name} boots, because the template was of no use: {error}") from error
                error.hint = error.hint or "try again: the template was removed, so the next start boots"
            raise
        inst.timeline.mark("restored")

    def _connect_agent(self, qemu: monitor.Conversation) -> None:
        """Let the recorder connect with the port of the guest's agent: what that sends before is lost."""
        deadline = time.monotonic() + _ADOPT_S
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(files.agent(self.inst))
            while any(_is_open_port(device) for device in qemu.ask("query-chardev")):
                if time.monotonic() > deadline:
                    raise DeadlineError(f"the recorder of {self.inst.name} does not connect with the guest's agent")
                time.sleep(_LOOK_S)

    def _load_memory(self, qemu: monitor.Conversation) -> None:
        """Do nothing: QEMU has mapped the file with the memory."""

    def _before_it_runs(self) -> None:
        """Do nothing: what it begins with can be used again."""

    def _load(self, qemu: monitor.Conversation) -> None:
        """Let QEMU read the state from a file that we have opened. Raises VmctlError."""
        fd = os.open(self._origin.path(DEVICES), os.O_RDONLY | os.O_CLOEXEC)
        try:
            qemu.ask("getfd", fd=fd, fdname="vmctl")
        finally:
            os.close(fd)
        try:
            qemu.ask("migrate-incoming", uri="fd:vmctl")
            while (status := qemu.ask("query-status")["status"]) == "inmigrate":
                time.sleep(_LOOK_S)
        except (monitor.RefusedError, ConnectionError) as error:  # it exits if the state does not fit
            detail = watch.qemu_tail(self.inst)
            text = f"QEMU cannot load the state of {self._origin.what}: {error}"
            raise VmctlError(text, hint=self._origin.hint if self._origin.resumes else "", detail=detail) from None
        if status not in ("paused", "prelaunch"):
            raise VmctlError(f"QEMU is {status} after it has loaded the state of {self._origin.what}")


class TemplateStart(GuestStart):
    """See vmctl.backend.Start: a guest that boots, waits, and is saved as a template for others."""

    def __init__(
        self, inst: Instance, machine: Machine, cell: Cell | None, launcher: Launcher, attachment: Attachment | None
    ) -> None:
        super().__init__(inst, machine, cell, launcher, attachment)
        # of the hardware as it is started: an attached workload has one more port
        self._key = templates.key(self._machine)

    def begin(self) -> None:
        """See Start: starts QEMU, and returns when the guest has been saved and goes on."""
        super().begin()
        await_mark(self.inst, "template", watch.AGENT_TIMEOUT_S)
        try:
            templates.keep(self.inst, self._key, self._machine)
        except VmctlError as error:
            self.inst.state.warnings.append(f"{error}; the next start will boot, too")
        request(self.inst, "release")


def _is_open_port(device: Mapping[str, Any]) -> bool:
    """Return whether a character device of QEMU is the port of the agent, and nobody is connected with it."""
    name = str(device.get("filename"))
    return name.startswith("disconnected:") and name.split(",")[0].endswith("/agent")


def tell(inst: Instance, word: bytes, content: bytes) -> None:
    """Write a request with content to the guest's control port. Raises OSError, DeadlineError."""
    data, deadline = memoryview(word + b" %d\n" % len(content) + content), time.monotonic() + _ADOPT_S
    fd = os.open(files.control(inst), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:  # the FIFO is full; the guest reads it
                if time.monotonic() > deadline:
                    raise DeadlineError(f"the guest {inst.name} does not take requests") from None
                time.sleep(_LOOK_S)
    finally:
        os.close(fd)


def await_mark(inst: Instance, mark: str, timeout_s: float) -> None:
    """Wait until the guest reports a mark. Raises DeadlineError, VmctlError if it reports an error or ends."""
    guest, deadline = watch.GuestWatch(inst), time.monotonic() + timeout_s
    with guest.events() as happened:
        while mark not in marks.lines(inst):
            guest.observe()
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"the guest {inst.name} did not report {mark} within {timeout_s:g} s",
                    detail=watch.console_tail(inst),
                )
            happened.wait(LOOK_S)


def request(inst: Instance, line: str) -> None:
    """Write a line to the guest's control port. Raises VmctlError."""
    try:
        control.request(inst, line)
    except OSError as error:
        raise VmctlError(f"the guest {inst.name} takes no requests: {error.strerror}") from None
