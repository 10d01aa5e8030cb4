"""Watch a guest: read the marks that it reports, from the file that the recorder writes."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import Literal

from vmctl import console
from vmctl.backend import Exit, ReportedExit
from vmctl.ends import is_supervised
from vmctl.errors import (
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    EXIT_VMCTL,
    CommandNotExecutableError,
    CommandNotFoundError,
    NotReady,
    StateError,
    VmctlError,
)
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmctl.linux.events import Events
from vmctl.linux.filetree import size_bytes
from vmctl.logs.logfile import last_bytes
from vmctl.spec.units import format_seconds
from vmm import boot, files, marks, receipt

CONSOLE_TAIL_LINES = 15
TAIL_BYTES = 1 << 16
CONSOLE_BYTES = 1 << 18  # of its end are searched for reports of the kernel
_OOM_KILL = re.compile(rb"[Oo]ut of memory: Killed process [0-9]+")  # mm/oom_kill.c
SOURCES = ("workload", "signal", "oom")  # who may have ended a workload, by the guest's report
BOOTING = "booting"  # firmware or kernel run, which report no marks
EXIT_SIGNAL = 128  # a shell's exit code for signal n is 128 + n
SETTLED = "cloud-init"  # the mark when it has finished; its result.json follows
_FIRST_MARK = {boot.DIRECT: "init", boot.SYSTEM: "init", boot.DISK: "system"}  # of each boot
_SETTLED_MARK = {boot.DIRECT: "exec", boot.SYSTEM: SETTLED, boot.DISK: SETTLED}
MAX_REBOOTS = 10  # of a guest that is not ready: it would go on for ever
_NOT_BOOTABLE = "No bootable device"  # SeaBIOS, src/boot.c
AGAIN = "[vmctl: the guest is started again]"  # written to the console between two starts
_LAST_WORDS: dict[str, tuple[Literal["exited", "failed"], str]] = {  # text of Linux on the console -> what it means
    "Kernel panic - not syncing: ": ("failed", "its kernel panicked: "),
    "reboot: Power down": ("exited", "it was switched off from inside"),
    "reboot: System halted": ("exited", "it was halted from inside"),
}
_RESTART = "reboot: Restarting system"
_NO_REBOOT = "a guest that began with saved memory ends then: `vmctl start` boots it"  # see vmm/domain.py
_QEMU = "qemu-system-x86_64: "  # how QEMU begins its messages
AGENT_TIMEOUT_S = 900.0  # until our agent reports: 45 s in an emulated guest, ten times that if many run at once
CLOUD_INIT_TIMEOUT_S = 1800.0  # after that: cloud-init may install packages


class GuestWatch:
    """See vmctl.backend.Watch. It keeps track of how far the guest's marks have been read."""

    own_kernel = True

    def __init__(self, inst: Instance) -> None:
        self.inst = inst
        self.phase = BOOTING
        self._seen_bytes = 0
        self._console_bytes = 0

    def alive(self) -> bool:
        """See Watch: whether QEMU runs, or the recorder, which ends when it has copied QEMU's last words."""
        state = self.inst.state
        return processes.alive(state.pid, state.pid_start) or is_supervised(self.inst)

    def result(self) -> Exit | None:
        """See Watch: as the guest has reported it, else that it was killed by vmctl; None if QEMU just vanished."""
        inst = self.inst
        if (reported := ended(inst)) or inst.state.pid is None or self.alive():
            return reported
        return Exit(EXIT_SIGNAL + signal.SIGKILL, "signal") if files.is_killed(inst) else None

    def observe(self) -> str:
        """See Watch. Raises CommandNotFoundError, CommandNotExecutableError or VmctlError for a start that failed."""
        inst, alive = self.inst, self.alive()  # before the marks: they may be the last ones
        self._look_at_output()
        self._look_at_marks()
        self._look_at_progress()
        if not alive and self.result() is None:
            why = cause(inst)[1]
            raise VmctlError(
                f"the guest {inst.name} shut down while in phase {self.phase}, because {why}",
                hint=f"`vmctl logs --boot {inst.name}` shows its console",
                detail=console_tail(inst),
            )
        return self.phase

    def events(self, *more: int) -> Events:
        """See Watch: each write of the recorder to a file of the instance, and the end of QEMU and of the recorder."""
        return Events((), more, (self.inst.state.pid, self.inst.state.supervisor_pid), folder=self.inst.directory)

    def settled(self) -> bool:
        """See Watch: whether the command runs, or cloud-init has finished in a guest that boots a system.

        Raises DeadlineError.
        """
        return settled(self.inst)

    def _look_at_output(self) -> None:
        inst = self.inst
        if "T5" not in inst.timeline.marks_ns and inst.has_output():
            inst.timeline.mark("T5")

    def _look_at_marks(self) -> None:
        inst = self.inst
        found_bytes = size_bytes(files.marks(inst))
        if found_bytes == self._seen_bytes:
            return
        self._seen_bytes = found_bytes
        reported = marks.read(inst)
        inst.timeline.mark("T4", reported[0].at_ns if reported else None)
        marks.note_phases(inst, reported)
        for line, at_ns in reported:
            self.phase = line.split(" ", 1)[0]
            if self.phase == "error":
                raise _error(inst, line)
            if self.phase in receipt.WORDS:
                receipt.check(inst, line)
            if self.phase == SETTLED and "TS" not in inst.timeline.marks_ns:
                inst.timeline.mark("TS", at_ns)
                _refuse_errors(inst, line)
                self._look_for_way_in()

    def _look_for_way_in(self) -> None:
        from vmm import wayin

        if warning := wayin.warning(self.inst, marks.lines(self.inst)):
            self.inst.state.warnings.append(warning)

    def _look_at_progress(self) -> None:
        """Raise VmctlError for a guest that will not get ready."""
        inst, name = self.inst, self.inst.name
        words = _words(inst)
        hint = f"`vmctl logs --boot {name}` shows its console"
        if (count := reboots(inst)) and _SETTLED_MARK[inst.state.boot or boot.DIRECT] not in words:
            self.phase = f"{words[-1]} (rebooted {count} times)"
            if count >= MAX_REBOOTS:
                text = f"the guest {name} rebooted {count} times and did not get ready"
                raise VmctlError(text, hint=hint, detail=console_tail(inst))
        if inst.state.boot == boot.DISK and not words and size_bytes(inst.console_log) != self._console_bytes:
            self._console_bytes = size_bytes(inst.console_log)
            if any(_NOT_BOOTABLE in line for line in _console(inst)):
                text = f"nothing bootable was found on the disk of {name}"
                raise VmctlError(text, hint=hint, detail=console_tail(inst))


def reboots(inst: Instance) -> int:
    """Return how many times the guest has booted again since its start, as its marks report it."""
    return max(0, _words(inst).count(_FIRST_MARK[inst.state.boot or boot.DIRECT]) - 1)


def takes_signals(inst: Instance) -> bool:
    """Return whether there is something in the guest that handles signals: the command, or the agent of a system."""
    return ("exec" if inst.state.boot == boot.DIRECT else "system") in _words(inst)


def _words(inst: Instance) -> list[str]:
    return [line.partition(" ")[0] for line in marks.lines(inst)]


def settled(inst: Instance) -> bool:
    """Return whether the guest's command runs, or if a system boots, cloud-init has finished. Raises NotReady."""
    words = _words(inst)
    if _SETTLED_MARK[inst.state.boot or boot.DIRECT] in words:
        return True
    if (ready := inst.work.ready) and not ready.probes():
        return False  # the workload has its own limit, see readiness.py
    limit_s = CLOUD_INIT_TIMEOUT_S if "system" in words else AGENT_TIMEOUT_S
    if time.monotonic_ns() - inst.timeline.marks_ns["T1"] > limit_s * 1e9:
        what = "cloud-init has not finished" if "system" in words else "cloud-init has not found its seed"
        if inst.state.boot == boot.DIRECT:
            what = "the command has not been executed"
        raise NotReady(
            f"in the guest {inst.name} {what} after {format_seconds(limit_s)}",
            hint="with --no-wait, `vmctl up` does not wait for it",
            detail=console_tail(inst),
        )
    return False


def ended(inst: Instance) -> Exit | None:
    """Return how the workload ended as reported by the guest, or None if it has not reported that.

    The first report counts: what a workload that has taken over the guest reports after it changes nothing.
    """
    for line in marks.lines(inst):
        word, _, rest = line.partition(" ")
        code, _, source = rest.partition(" ")
        if word == "exit" and _is_code(code) and source in SOURCES:
            return ReportedExit(int(code), source)
        if word == "error" and _is_code(code):
            return ReportedExit(int(code), "vmctl")
        if word == SETTLED and _cloud_init_errors(rest):
            return ReportedExit(EXIT_VMCTL, "vmctl")
    return None


def _is_code(text: str) -> bool:
    """Return whether a text that the guest has written is an exit code."""
    return re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) is not None and int(text) < 256


def reported_oom_kills(inst: Instance) -> int:
    """Return how many processes the guest's kernel reports as killed for lack of memory, in the end of the console."""
    return len(_OOM_KILL.findall(last_bytes(inst.console_log, CONSOLE_BYTES)))


def console_tail(inst: Instance) -> str:
    """Return the last lines of the serial console since the last start."""
    return "\n".join(_console(inst)[-CONSOLE_TAIL_LINES:])


def qemu_tail(inst: Instance) -> str:
    """Return the last messages of QEMU; libvirt writes the command line before them, which is left out."""
    lines = _lines(files.qemu_log(inst))
    return "\n".join(line for line in lines[-CONSOLE_TAIL_LINES:] if _QEMU in line or "error" in line)


def command_lost(name: str) -> StateError:
    """Return the error for a command whose guest has ended."""
    hint = f"`vmctl logs {name}` shows its last output"
    return StateError(f"{name} has ended, and the command with it", hint=hint)


def cause(inst: Instance) -> tuple[Literal["exited", "failed"], str]:
    """Return status and reason of a guest that is gone: its kernel's last words on the console, or QEMU's."""
    for line in reversed(_console(inst)):
        for text, (status, meaning) in _LAST_WORDS.items():
            if text in line:
                return status, f"{meaning}{line.partition(text)[2][:200].rstrip()}" if meaning[-1] == " " else meaning
    if inst.state.warm and any(_RESTART in line for line in _console(inst)):
        return "exited", f"it was rebooted from inside, and {_NO_REBOOT}"
    message = qemu_tail(inst).rpartition(_QEMU)[2]
    killed = (
        f"QEMU was killed; or the guest has reset its machine, and {_NO_REBOOT}"
        if inst.state.warm
        else "QEMU was killed"
    )
    return "failed", f"QEMU ended: {message}" if message else killed


def _console(inst: Instance) -> list[str]:
    """Return the last lines of the console since the last start."""
    lines = _lines(inst.console_log)
    return lines[len(lines) - lines[::-1].index(AGAIN) :] if AGAIN in lines else lines


def _error(inst: Instance, line: str) -> VmctlError:
    code, _, text = line.partition(" ")[2].partition(" ")
    program = text.partition(": ")[2]
    if code == str(EXIT_NOT_FOUND):
        return CommandNotFoundError(f"the command {program} is not in the image")
    if code == str(EXIT_NOT_EXECUTABLE):
        return CommandNotExecutableError(f"the command {program} cannot be executed")
    return VmctlError(f"the guest {inst.name} cannot start its workload: {text}", detail=console_tail(inst))


def _refuse_errors(inst: Instance, line: str) -> None:
    if errors := _cloud_init_errors(line.partition(" ")[2]):
        raise VmctlError(
            f"cloud-init in the guest {inst.name} failed: {'; '.join(errors)}",
            hint=f"`vmctl logs --boot {inst.name}` shows its output",
            detail=console_tail(inst),
        )


def _cloud_init_errors(result: str) -> list[str]:
    """Return the errors in cloud-init's result.json; a missing result is an error too."""
    try:
        return [str(error) for error in json.loads(result)["v1"]["errors"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"it wrote no valid result ({result.strip() or 'nothing'})"]


def _lines(path: str) -> list[str]:
    return console.lines(last_bytes(path, TAIL_BYTES).decode(errors="replace"))
