"""Jobs that wait for each other, each in a forked process: all that can go on at the same time does.

A process per job, because a start changes its process (umask, signals, namespaces of threads) and forks again. It ends
with its parent (PR_SET_PDEATHSIG, prctl(2)): what is left of a killed command is instances whose lock nobody holds, and
`down` removes them. A job reports by lines of JSON through a pipe.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from vmctl.errors import EXIT_VMCTL, VmctlError
from vmctl.light import json, signal

Send = Callable[..., None]  # event, values
Report = Callable[[str, str, Mapping[str, Any]], None]  # job, event, values
DONE, FAILED, LEFT = "done", "failed", "left"  # left: it has not begun, because what it waits for did not happen
_BLOCK_BYTES = 1 << 16
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_AT_ONCE = 32


class Job(NamedTuple):
    """Something to do when each of `needs`, an event of another job, has happened."""

    name: str
    act: Callable[[Send], None]
    needs: tuple[tuple[str, str], ...] = ()
    weight: int = 1  # the sum of the jobs at work is limited


class Failure(NamedTuple):
    """Why a job has failed."""

    job: str
    error: VmctlError


class _Worker:
    """A job at work."""

    def __init__(self, job: Job, pid: int, fd: int) -> None:
        self.job, self.pid, self.fd = job, pid, fd
        self.rest = b""
        self.over = False  # whether it has reported its end

    def events(self) -> Iterable[tuple[str, dict[str, Any]]] | None:
        """Return what it has reported since the last call; None at its end."""
        data = os.read(self.fd, _BLOCK_BYTES)
        if not data:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        found = [json.loads(line) for line in lines]
        self.over = self.over or any(event in (DONE, FAILED) for event, _ in found)
        return [(event, values) for event, values in found]

    def reap(self) -> int:
        """Wait for the end of the process and return its exit status."""
        os.close(self.fd)
        return os.waitpid(self.pid, 0)[1]


def run(jobs: Sequence[Job], report: Report, *, limit: int = MOST_AT_ONCE, go_on: bool = False) -> list[Failure]:
    """Do all jobs and return the failures, the first one first.

    After a failure no other job begins, and those at work are asked to end; with `go_on` only the jobs that need it do
    not begin. If this process is interrupted, the jobs are asked to end too, and waited for.
    """
    return _Run(jobs, report, limit, go_on=go_on).all()


class _Run:
    """The state of `run`."""

    def __init__(self, jobs: Sequence[Job], report: Report, limit: int, *, go_on: bool) -> None:
        self.waiting = list(jobs)
        self.report, self.limit, self.go_on = report, limit, go_on
        self.happened: set[tuple[str, str]] = set()
        self.working: dict[int, _Worker] = {}
        self.failures: list[Failure] = []

    def all(self) -> list[Failure]:
        try:
            while self._begin() or self.working:
                self._wait()
        finally:
            self._end_all()
        for job in self.waiting:
            self.report(job.name, LEFT, {})
        return self.failures

    def _begin(self) -> bool:
        """Begin each job whose needs are met; return whether one has begun."""
        begun = False
        if self.failures and not self.go_on:
            return False
        for job in [job for job in self.waiting if set(job.needs) <= self.happened]:
            if self.working and sum(one.job.weight for one in self.working.values()) + job.weight > self.limit:
                continue
            self.waiting.remove(job)
            worker = _begun(job)
            self.working[worker.fd] = worker
            begun = True
        return begun

    def _wait(self) -> None:
        if not self.working:
            return
        for fd in select.select(list(self.working), [], [])[0]:
            worker = self.working[fd]
            events = worker.events()
            for event, values in events or ():
                self._take(worker.job, event, values)
            if events is None:
                self._ended(worker)

    def _take(self, job: Job, event: str, values: dict[str, Any]) -> None:
        if event == FAILED and not (self.failures and values.get("interrupted")):
            error = VmctlError(values["text"], hint=values["hint"], detail=values["detail"])
            error.exit_code = values["exit_code"]
            self._failed(job, error)
        self.happened.add((job.name, event))
        self.report(job.name, event, values)

    def _ended(self, worker: _Worker) -> None:
        del self.working[worker.fd]
        worker.reap()
        if not worker.over:
            self._failed(worker.job, VmctlError(f"{worker.job.name}: the process that was working on it was killed"))

    def _failed(self, job: Job, error: VmctlError) -> None:
        first = not self.failures
        self.failures.append(Failure(job.name, error))
        if first and not self.go_on:
            for worker in self.working.values():
                if worker.job is not job:
                    _ask_to_end(worker)

    def _end_all(self) -> None:
        for worker in self.working.values():
            _ask_to_end(worker)
        for worker in self.working.values():
            worker.reap()
        self.working.clear()


def _ask_to_end(worker: _Worker) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker.pid, signal.SIGTERM)


def _begun(job: Job) -> _Worker:
    parent = os.getpid()
    mine, theirs = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # a handler's exception must not leave the block below
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(theirs)
        return _Worker(job, pid, mine)
    code = EXIT_VMCTL
    try:
        _tied_to(parent)
        os.close(mine)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = _work(job, theirs)
    finally:  # always: this copy of the caller must not go on
        os._exit(code)


def _tied_to(parent: int) -> None:
    """End with the parent, also if it has just ended."""
    from vmctl.linux import syscalls

    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_VMCTL)


def _work(job: Job, fd: int) -> int:
    """Do a job and report how it ended."""

    def send(event: str, **values: Any) -> None:
        data = json.dumps([event, values]).encode() + b"\n"
        while data:
            data = data[os.write(fd, data) :]

    try:
        job.act(send)
        send(DONE)
        return 0
    except VmctlError as error:
        send(FAILED, text=str(error), hint=error.hint, detail=error.detail, exit_code=error.exit_code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        send(FAILED, text=f"{job.name}: {error.strerror or error}{where}", hint="", detail="", exit_code=EXIT_VMCTL)
    except Exception as error:
        text = f"{job.name}: internal error: {type(error).__name__}: {error} (please report it)"
        send(FAILED, text=text, hint="", detail="", exit_code=EXIT_VMCTL)
    except BaseException:  # asked to end: what it was doing is undone
        text = f"{job.name} was interrupted"
        send(FAILED, text=text, hint="", detail="", exit_code=EXIT_VMCTL, interrupted=True)
    return EXIT_VMCTL
