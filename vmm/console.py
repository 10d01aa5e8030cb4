"""The serial console of a guest, on the caller's terminal: its output is in a log, its input goes through a FIFO."""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack, suppress

from vmctl.attach.keys import WAIT_S, Keys
from vmctl.attach.modes import Modes
from vmctl.errors import StateError
from vmctl.instances.instance import Instance
from vmctl.linux import processes, relay, terminal
from vmctl.linux.stdio import write_all
from vmctl.logs.logfile import LogReader
from vmm import files

_LINES = 10  # of the past that are shown
_PERIOD_S = 0.02  # between two looks at the log
_READ_BYTES = 4096  # a FIFO that poll(2) reports as writable takes so many (pipe(7), PIPE_BUF)


def converse(inst: Instance, pressed: bytes) -> bool:
    """Connect this process's terminal with the console; return False if the keys were pressed, True at its end.

    Raises StateError if it takes no input.
    """
    try:
        target = os.open(f"{files.console(inst)}.in", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(
            f"the console of {inst.name} takes no input: {error.strerror}",
            hint=f"an earlier vmctl has started it: `vmctl restart {inst.name}`",
        ) from None
    with ExitStack() as stack:
        stack.callback(os.close, target)
        stack.enter_context(terminal.raw(0))
        stack.enter_context(relay.reading_in_background_fails())
        console = _Console(inst, Keys(pressed), target)
        stack.callback(console.leave)
        return console.run()


class _Console:
    """The loop between terminal and console."""

    def __init__(self, inst: Instance, keys: Keys, target: int) -> None:
        self._inst, self._keys, self._target = inst, keys, target
        self._log, self._modes, self._typed, self._reads = LogReader(inst.console_log), Modes(), b"", True
        self._held_until = 0.0
        self._log.skip_to_tail(_LINES)

    def run(self) -> bool:
        """Copy until the guest has ended or the keys are pressed."""
        state = self._inst.state
        while True:
            runs = processes.alive(state.pid, state.pid_start)  # before copying, so that the last round copies all
            while output := self._log.read():
                self._modes.see(output)
                write_all(1, output)
            if not runs:
                return True
            self._read()
            if self._keys.complete or not (self._reads or self._typed):
                return False
            self._write()

    def leave(self) -> None:
        """Switch off what the guest has left switched on in the terminal."""
        self._log.close()
        with suppress(OSError):
            write_all(1, self._modes.undo())

    def _read(self) -> None:
        """Wait for input for a moment, and take it."""
        wanted = [0] if self._reads and not self._typed and not relay.in_background(0) else []
        if select.select(wanted, [self._target] if self._typed else [], [], _PERIOD_S)[0]:
            try:
                data = os.read(0, _READ_BYTES - len(self._keys.held))
            except OSError:  # EIO: the terminal was closed, or this process is in the background by now
                if relay.in_background(0):
                    return
                data = b""
            self._reads, self._held_until = bool(data), time.monotonic() + WAIT_S
            self._typed += self._keys.feed(data)
        elif self._keys.held and time.monotonic() > self._held_until:
            self._typed += self._keys.release()

    def _write(self) -> None:
        with suppress(BlockingIOError):
            if self._typed:
                self._typed = self._typed[os.write(self._target, self._typed[:_READ_BYTES]) :]
