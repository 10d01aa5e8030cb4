"""Readiness probes: run from the host, the same for every mode.

Events are used instead of polling wherever they exist: for output of the workload, for its end, and for the start of
listening on a port if the workload runs on the host's kernel. Only the port of a guest is polled, every millisecond,
once its init runs. Connections are made inside the instances' network, not through a forwarder.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from vmctl.backend import Watch
from vmctl.errors import EndedEarly, NotReady, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux.events import LOOK_S, PERIOD_S
from vmctl.logs.logfile import last_bytes
from vmctl.logs.logsearch import LogSearch, interrupted_at
from vmctl.named import TYPE_CHECKING
from vmctl.net.connect import Connector
from vmctl.programs import CommandError, module, run
from vmctl.spec.units import format_seconds
from vmctl.spec.workload import Ready

if TYPE_CHECKING:
    from socket import socket

    from vmctl.linux.listening import Listening

SETTLE_PERIOD_S = 0.01  # a system takes seconds to boot
EXEC_PERIOD_S = 0.1
EXEC_S = 10.0  # time limit for a command
_TAIL_BYTES = 8192


def wait_until_ready(watch: Watch, progress: Callable[[Instance, str], None] | None = None) -> None:
    """Wait until the guest system, if any, has booted and the workload's probe has succeeded, and mark T6.

    The time limit of the probe begins when the system has booted; without a probe, it is the limit of booting. Raises
    NotReady with the phase and the last lines of the console, EndedEarly if the workload ends first.
    """
    show = progress or (lambda inst, phase: None)
    ready = watch.inst.work.ready
    wait_until_settled(watch, show, None if ready and ready.probes() else ready)
    if ready and ready.probes():
        _wait_for_probe(watch, ready, show)
    watch.inst.timeline.mark("T6")  # without a probe: now
    watch.observe()


def wait_until(done: Callable[[], bool], watch: Watch, timeout_s: float) -> bool:
    """Call `done` after each event of the instance until it returns True; return False after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    with watch.events() as happened:
        while not done():
            if time.monotonic() > deadline_s:
                return False
            happened.wait(LOOK_S)
    return True


def wait_for_output(watch: Watch, timeout_s: float) -> None:
    """Wait until T5 is marked or the instance has ended, but at most `timeout_s`."""

    def over() -> bool:
        running = watch.alive()  # before `observe`, which still has to see the last output
        watch.observe()
        return "T5" in watch.inst.timeline.marks_ns or not running

    wait_until(over, watch, timeout_s)


def wait_until_settled(watch: Watch, show: Callable[[Instance, str], None], limit: Ready | None = None) -> None:
    """Wait until the guest system, if any, has booted, at most as long as `limit` allows. Raises VmctlError."""
    settled = False
    while not settled:
        settled = watch.settled()
        phase = watch.observe()  # marks the end of booting; raises if booting failed
        if limit and time.monotonic_ns() - watch.inst.timeline.marks_ns["T0"] > limit.timeout_s * 1e9:
            raise _late(watch.inst, limit, phase)
        if settled:
            return
        if not watch.alive():
            raise _ended(watch)
        show(watch.inst, phase)
        time.sleep(SETTLE_PERIOD_S)


def _wait_for_probe(watch: Watch, ready: Ready, show: Callable[[Instance, str], None]) -> None:
    inst = watch.inst
    look_s, deadline_s = 0.0, time.monotonic() + ready.timeout_s
    can_answer = not watch.own_kernel  # a guest cannot before its init runs
    with ExitStack() as stack:
        probe = stack.enter_context(closing(_probe(ready, inst)))
        probe.deadline_s = deadline_s
        if can_answer and probe():
            return  # before the rest is set up, which takes a millisecond or two
        wakers = []
        if listening := _listening(watch, ready):
            wakers = [stack.enter_context(listening).fd]
            probe.period_s = LOOK_S
        happened = stack.enter_context(watch.events(*wakers))
        woken = True
        while True:
            now_s = time.monotonic()
            if due := now_s >= look_s:
                look_s = now_s + LOOK_S
            if can_answer and probe():  # first of all: it marks the moment
                return
            if woken or due:
                phase = watch.observe()
                can_answer = can_answer or "T4" in inst.timeline.marks_ns
            if (happened.ended or due) and not watch.alive():
                if can_answer and probe():  # it has become ready, and ended, since the last probe
                    return
                raise _ended(watch)
            if now_s > deadline_s:
                raise _late(inst, ready, f"{phase}; {probe.seen()}")
            show(inst, phase)
            period_s = probe.period_s if can_answer else LOOK_S
            woken = happened.wait(max(0.0, now_s + period_s - time.monotonic()))


def _late(inst: Instance, ready: Ready, phase: str) -> NotReady:
    what = "ready" if ready.probes() else "started"
    return NotReady(
        f"{inst.name} was not {what} within {format_seconds(ready.timeout_s)}; the last phase was: {phase}",
        hint="set a longer time with `ready: {timeout: ...}` in the workload file",
        detail=tail(inst),
    )


def _listening(watch: Watch, ready: Ready) -> Listening | None:
    """Return a context that wakes when the workload listens on its port, or None if that is not possible."""
    port = ready.http.port if ready.http else ready.tcp
    if port is None or watch.own_kernel:
        return None
    from vmctl.linux.listening import Listening

    try:
        return Listening(watch.inst.cgroup, port)
    except (OSError, VmctlError):  # an older kernel, no v2 cgroup, or no privilege for BPF
        return None


def tail(inst: Instance, lines: int = 15) -> str:
    """Return the last lines of the console and of the workload's logs."""
    parts = []
    for path in (inst.console_log, inst.stdout_log, inst.stderr_log):
        if last := last_bytes(path, _TAIL_BYTES).decode(errors="replace").splitlines()[-lines:]:
            parts.append(f"last lines of {path.rpartition('/')[2]}:\n" + "\n".join(last))
    return "\n".join(parts)


def _ended(watch: Watch) -> EndedEarly:
    result = watch.result()
    how = f" with code {result.code} ({result.source})" if result else ""
    return EndedEarly(f"{watch.inst.name} ended{how} before it was ready", detail=tail(watch.inst))


def _probe(ready: Ready, inst: Instance) -> _Probe:
    """Return the workload's probe."""
    if ready.http is not None:
        return _HttpProbe(inst, ready.http.port, ready.http.path)
    if ready.tcp is not None:
        return _TcpProbe(inst, ready.tcp)
    if ready.log is not None:
        return _LogProbe(inst, ready.log)
    return _ExecProbe(inst, ready.exec or ())


class _Probe:
    """A probe; it is called after each event, and after `period_s` without an event."""

    period_s = LOOK_S
    deadline_s = float("inf")  # by time.monotonic; a single attempt must not take longer either

    def __init__(self, inst: Instance) -> None:
        self.inst = inst

    def __call__(self) -> bool:
        """Return whether the workload is ready now; if so, mark T6 before anything else."""
        ready = self.succeeds()
        if ready:
            self.inst.timeline.mark("T6")
        return ready

    def succeeds(self) -> bool:
        raise NotImplementedError

    def seen(self) -> str:
        """Return what the last attempts have shown, for an error."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what it has opened: after the mark, because closing takes time too."""


class _TcpProbe(_Probe):
    """Succeeds if the port accepts connections."""

    period_s = PERIOD_S

    def __init__(self, inst: Instance, port: int) -> None:
        super().__init__(inst)
        self.answered: socket | None = None
        self.answer = ""  # the last one that was not good
        self.address, self.port = inst.state.address or "127.0.0.1", port
        self.connector = Connector(self.address, port)

    def succeeds(self) -> bool:
        connection = self.connector.poll(PERIOD_S)
        if connection is None:
            return False
        self.period_s = PERIOD_S  # the workload listens: no event will announce a better answer
        if self.check(connection):
            self.answered = connection
            return True
        connection.close()
        return False

    def close(self) -> None:
        self.connector.close()
        if self.answered:
            self.answered.close()

    def seen(self) -> str:
        if self.answer:
            return f"port {self.port} answers {self.answer}"
        if self.connector.refused:
            return f"nothing listens on its port {self.port}"
        return f"its address {self.address} does not answer"

    def check(self, connection: socket) -> bool:
        return True


class _HttpProbe(_TcpProbe):
    """Succeeds if a GET is answered with a status below 400 (RFC 9110)."""

    def __init__(self, inst: Instance, port: int, path: str) -> None:
        from vmctl import httpanswer

        super().__init__(inst, port)
        self.http = httpanswer
        self.request = httpanswer.request(inst.state.address or "127.0.0.1", port, path)

    def check(self, connection: socket) -> bool:
        connection.settimeout(self.http.ANSWER_S)
        try:
            connection.sendall(self.request)
            status = self.http.status(self.http.first_line(connection))
            self.answer = "something else than HTTP" if status is None else f"with status {status}"
        except OSError:
            self.answer = "too late or not at all"
            return False
        if status is not None and status < 400:
            return True
        self.http.drain(connection, quiet_s=0.0)  # the next attempt does not wait for it
        return False

    def close(self) -> None:
        if self.answered:
            self.http.drain(self.answered)
        super().close()


class _LogProbe(_Probe):
    """Succeeds if the workload's output contains a match; each byte is read once."""

    def __init__(self, inst: Instance, pattern: str) -> None:
        super().__init__(inst)
        self.pattern = re.compile(pattern.encode(), re.MULTILINE)
        self.logs = [LogSearch(path) for path in (inst.stdout_log, inst.stderr_log)]
        for log in self.logs:  # the output of an earlier run is in it too
            if log.reader.path in inst.logged:
                log.reader.skip_to(*inst.logged[log.reader.path])

    def succeeds(self) -> bool:
        try:
            with interrupted_at(self.deadline_s):
                return any(log.finds(self.pattern) for log in self.logs)
        except TimeoutError:
            raise NotReady(
                f"{self.inst.name} was not ready in time: ready.log takes too long to be matched with its output",
                hint="avoid repetitions in repetitions, such as (a+)+",
            ) from None

    def seen(self) -> str:
        return "its output does not match ready.log"

    def close(self) -> None:
        for log in self.logs:
            log.reader.close()


class _ExecProbe(_Probe):
    """Succeeds if a command in the instance exits with 0. It takes CPU time of the workload, so the period is longer.

    It is run by a separate vmctl, because entering namespaces changes the calling process; its output is discarded.
    """

    def __init__(self, inst: Instance, command: tuple[str, ...]) -> None:
        super().__init__(inst)
        self.argv = module("vmctl", "exec", "--no-stdin", inst.name, "--", *command)
        self.next_s = 0.0
        self.end = "did not end in time"  # unless an attempt shows more

    def seen(self) -> str:
        return f"the command of ready.exec {self.end}"

    def succeeds(self) -> bool:
        now_s = time.monotonic()
        if now_s < self.next_s:
            return False
        self.next_s = now_s + EXEC_PERIOD_S
        try:
            limit_s = min(EXEC_S, max(0.001, self.deadline_s - now_s))
            code = run(self.argv, check=False, timeout_s=limit_s)[0]
            self.end = f"ended with code {code}"
        except CommandError:
            return False
        return code == 0
