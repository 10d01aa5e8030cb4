"""The serial console of a guest, on the caller's terminal: its output is in a log, its input goes through a FIFO."""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack, suppress

from vmctl.attach.keys import WAIT_S, Keys
from vmctl.attach.modes import Modes
from vmctl.attach.session import Output
from vmctl.errors import StateError
from vmctl.instances.instance import Instance
from vmctl.linux import processes, relay, terminal
from vmctl.linux.stdio import write_all
from vmctl.logs.logfile import LogReader
from vmm import files

_LINES = 10  # of the past that are shown
_PERIOD_S = 0.02  # between two looks at the log
_TYPED_BYTES = 1 << 20  # at most wait for a guest that takes none
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
    """The loop between terminal and console. A guest that floods it, or takes no input, keeps nobody from leaving."""

    def __init__(self, inst: Instance, keys: Keys, target: int) -> None:
        self._inst, self._keys, self._target = inst, keys, target
        self._log, self._modes, self._output = LogReader(inst.console_log), Modes(), Output(1)
        self._typed, self._reads = bytearray(), True
        self._held_until = 0.0
        self._log.skip_to_tail(_LINES)

    def run(self) -> bool:
        """Copy until the guest has ended or the keys are pressed."""
        state = self._inst.state
        while True:
            runs = processes.alive(state.pid, state.pid_start)  # before copying, so that the last round copies all
            shows = self._show()
            if not (runs or shows):
                return True
            self._wait(0.0 if shows and not self._output.waiting else _PERIOD_S)
            if self._keys.complete or not (self._reads or self._typed):
                return False

    def leave(self) -> None:
        """Switch off what the guest has left switched on in the terminal."""
        self._log.close()
        with suppress(OSError):
            write_all(1, self._modes.undo())

    def _show(self) -> bool:
        """Write output as far as the terminal takes it, at most a block; return whether there may be more."""
        if not self._output.waiting:
            data = self._log.read()
            self._modes.see(data)
            self._output.waiting += data
        found = bool(self._output.waiting)
        self._output.write()
        return found

    def _wait(self, period_s: float) -> None:
        """Wait for what can be copied, for a moment, and take and give input."""
        reads = [0] if self._reads and not relay.in_background(0) else []
        writes = [self._target] * bool(self._typed) + [1] * bool(self._output.waiting)
        readable, writable, _ = select.select(reads, writes, [], period_s)
        if readable:
            self._read()
        elif self._keys.held and time.monotonic() > self._held_until:
            self._type(self._keys.release())
        if self._target in writable:
            with suppress(BlockingIOError):
                del self._typed[: os.write(self._target, self._typed[:_READ_BYTES])]

    def _read(self) -> None:
        try:
            data = os.read(0, _READ_BYTES - len(self._keys.held))
        except OSError:  # EIO: the terminal was closed, or this process is in the background by now
            if relay.in_background(0):
                return
            data = b""
        self._reads, self._held_until = bool(data), time.monotonic() + WAIT_S
        self._type(self._keys.feed(data))

    def _type(self, data: bytes) -> None:
        """Keep what is for the guest until it takes it; what does not fit is lost, as at a serial line."""
        self._typed += data[: max(0, _TYPED_BYTES - len(self._typed))]
