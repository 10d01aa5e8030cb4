"""The part of a supervisor, or of the recorder of a guest, that checks the health of a workload and restarts it.

It runs in a bare interpreter and has to be small: it is a clock. Each check is a separate process (check.py), and so is
what comes after the end of the workload (restart.py, remove.py). Nothing of it is imported for a workload without a
check, without a restart policy and without `--rm`.

Checks are hostile: they may write without end, never end, or leave processes behind. So the pipe of a check is never
waited for, what exceeds OUTPUT_BYTES is read slowly and dropped, and after the time limit its process group is killed.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would import `enum`, 1 MB
import os
import select
import time

TYPE_CHECKING = False  # `typing` would be 1 MB more
if TYPE_CHECKING:
    from collections.abc import Collection

STOP_SIGNAL = _signal.SIGUSR1  # the request not to start the workload again; any other program of ours ends by it
VARIABLE, SEPARATOR = "VMCTL_KEEP", "\x1f"  # the environment variable with the settings, and between two of them
MARK = "vmctl:after"  # the last word of the command line of a process that a supervisor becomes after the end
OUTPUT_BYTES = 4096
RECORD_BYTES = 5120  # the whole record: the file has this size from the beginning, so a full disk has room for it
NOT_YET = 250  # exit code of a check: the workload does not run yet
_DRAIN_S = 0.02
_READ_BYTES = 65536
_RESET = (_signal.SIGPIPE, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, STOP_SIGNAL)  # ignored or caught here


class Settings:
    """What to keep, as words of a command line."""

    def __init__(self, record: str, times: str, held: str, after: str, name: str, *program: str) -> None:
        """See vmctl/keeping/runs.py."""
        self.record, self.name, self.program = record, name, list(program)
        numbers = list(map(float, times.split()))
        self.checks = bool(numbers)
        self.interval_s, self.timeout_s, self.retries, self.start_period_s, self.start_interval_s = numbers or [0.0] * 5
        self.held = int(held)  # descriptor of the secrets, -1 without
        self.restarts, self.removes = after == "restart", after == "remove"


class Keeper:
    """The checks of one run of a workload."""

    def __init__(self, poller: select.poll) -> None:
        """Make the keeper of the settings in the environment, which other programs do not inherit."""
        self._poller, self._set = poller, Settings(*os.environ.pop(VARIABLE).split(SEPARATOR))
        self.stopped = False
        self._pid, self._pidfd, self._pipe = 0, -1, -1
        self._output, self._drains, self._killed = bytearray(), False, False
        self._state, self._failures, self._began_s = "starting", 0, time.monotonic()
        self._next_s, self._limit_s = self._began_s, 0.0
        for name in os.listdir("/proc/self/fd"):  # a check inherits nothing
            try:
                os.set_inheritable(int(name), int(name) < 3)
            except OSError:  # the descriptor of this listing
                pass
        _signal.signal(STOP_SIGNAL, self._stop)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [STOP_SIGNAL])

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def has(self, fd: int) -> bool:
        """Return whether a descriptor is of a check."""
        return fd in (self._pidfd, self._pipe)

    def wait_ms(self) -> float | None:
        """Return how long the caller may wait for its descriptors, in milliseconds; None: without limit."""
        if self._pid:
            due_s = time.monotonic() + 1.0 if self._killed else self._limit_s
            if self._drains:
                due_s = min(due_s, time.monotonic() + _DRAIN_S)
        elif self._set.checks:
            due_s = self._next_s
        else:
            return None
        return max(0.0, due_s - time.monotonic()) * 1000

    def handle(self, ready: Collection[int]) -> None:
        """Do what is due; `ready` are the descriptors that poll(2) has reported, the caller's too."""
        now_s = time.monotonic()
        if self._pid:
            if self._pipe in ready or self._drains:
                self._read()
            if self._pidfd in ready:
                self._finish()
            elif now_s >= self._limit_s and not self._killed:
                self._killed = True
                self._kill()
        elif self._set.checks and now_s >= self._next_s:
            self._begin()

    def ended(self) -> None:
        """Its end is recorded: end the check; become the process that starts it again or removes it."""
        if self._pid:
            self._kill()
        if self._set.removes:  # also if its user has stopped it
            words = [*self._set.program, "vmctl.keeping.remove", *self._set.name.split(), MARK]
            os.execve(words[0], words, os.environ)
        if not self._set.restarts:
            return
        _signal.pthread_sigmask(
            _signal.SIG_BLOCK, [STOP_SIGNAL]
        )  # in the next program it is still pending, and ends it
        if self.stopped:
            return
        if self._set.held >= 0:
            os.set_inheritable(self._set.held, True)
        words = [
            *self._set.program,
            "vmctl.keeping.restart",
            "ended",
            *self._set.name.split(),
            str(self._set.held),
            "0",
        ]
        os.execve(words[0], [*words, MARK], os.environ)

    def _begin(self) -> None:
        self._output, self._drains, self._killed = bytearray(), False, False
        self._limit_s = time.monotonic() + self._set.timeout_s
        try:
            self._pipe, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self._judge(1, f"the check could not be started: {error.strerror}")
            return
        os.set_blocking(write, True)
        words = [*self._set.program, "vmctl.keeping.check", *self._set.name.split()]
        actions = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
        try:
            self._pid = os.posix_spawn(
                words[0], words, os.environ, file_actions=actions, setpgroup=0, setsigdef=_RESET, setsigmask=[]
            )
            self._pidfd = os.pidfd_open(self._pid)
        except OSError as error:
            if self._pid:
                self._kill()
                os.waitpid(self._pid, 0)
                self._pid = 0
            os.close(self._pipe)
            self._judge(1, f"the check could not be started: {error.strerror}")
            return
        finally:
            os.close(write)
        self._poller.register(self._pidfd, select.POLLIN)
        self._poller.register(self._pipe, select.POLLIN)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        self._output += data[: OUTPUT_BYTES - len(self._output)]
        if not self._drains and (not data or len(self._output) == OUTPUT_BYTES):
            self._drains = bool(data)  # from now on by the clock: it may write without end
            self._forget(self._pipe)

    def _forget(self, fd: int) -> None:
        try:
            self._poller.unregister(fd)
        except (KeyError, OSError):  # it is forgotten already
            pass

    def _kill(self) -> None:
        try:
            os.killpg(self._pid, _signal.SIGKILL)
        except OSError:  # it has ended just now
            pass

    def _finish(self) -> None:
        if not self._drains:
            self._read()
        self._kill()  # what it has started with it
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        for fd in (self._pidfd, self._pipe):
            self._forget(fd)
            os.close(fd)
        self._pid, self._pidfd, self._pipe, self._drains = 0, -1, -1, False
        if self._killed:
            self._output[:] = b"the check did not end within %g s\n" % self._set.timeout_s + self._output
        self._judge(1 if self._killed else code)

    def _judge(self, code: int, text: str = "") -> None:
        """Count a result and record it: see `vmctl.spec.workload.Health`."""
        now_s, was = time.monotonic(), self._state
        self._next_s = now_s + (self._set.start_interval_s if was == "starting" else self._set.interval_s)
        if code == NOT_YET:  # a guest boots
            if was == "starting":
                self._began_s = now_s
            return
        if code == 0:
            self._state, self._failures, self._next_s = "healthy", 0, now_s + self._set.interval_s
        else:
            self._failures += 1
            trial_s = self._set.start_period_s + self._set.retries * self._set.interval_s
            if now_s - self._began_s >= trial_s if was == "starting" else self._failures >= self._set.retries:
                self._state = "unhealthy"
        head = b"%s %d %d %.3f\n" % (self._state.encode(), self._failures, code, time.time())
        self._write(head + text.encode() + self._output)

    def _write(self, record: bytes) -> None:
        try:
            fd = os.open(self._set.record, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # its folder is gone
            return
        try:
            os.pwrite(fd, record[:RECORD_BYTES].ljust(RECORD_BYTES, b"\0"), 0)
        except OSError:
            pass
        os.close(fd)
