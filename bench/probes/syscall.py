"""System calls: the same calls by the same static program in every mode."""

from __future__ import annotations

from bench.probes import Request, Seen, tool
from bench.questions import Question, value
from vmctl.spec.workload import Workload

ROUNDS = None
COUNTS = {"getppid": 1_000_000, "open_close": 100_000, "spawn": 300, "fault": 100_000}  # 0.1 s to 0.5 s each

_CLOCK = (
    "A loop of {count:,}, from the line `begin` to the line `end` of the program's output by the host's clock, divided "
    "by their number; each line wakes the host."
)


def _question(name: str, title: str, meaning: str, *, headline: bool = False) -> Question:
    return Question(
        f"syscall.{name}_s",
        title,
        "s",
        value(f"{name}_s"),
        headline=headline,
        meaning=f"{meaning} {_CLOCK.format(count=COUNTS[name])}",
    )


QUESTIONS = (
    _question("getppid", "system call", "getppid(2) through syscall(2), which no library caches.", headline=True),
    _question("open_close", "open and close a file", "open(2) and close(2) of a file of the image."),
    _question("spawn", "start and end a process", "fork(2), execve(2) of a static program that returns, wait(2)."),
    _question("fault", "first touch of a page", "A new page of 4 KiB is written to, and later unmapped."),
)


def prepare(work: Workload) -> Workload:
    """Return the workload with the probe program in its image and as its command. Raises VmctlError."""
    return tool.working(work, COUNTS)


limit_s = tool.limit_s


def observe(request: Request) -> Seen:
    """Return the seconds that one call of each kind takes. Raises errors of vmctl.errors."""
    spans, seen = tool.worked(request)
    return seen._replace(values={f"{name}_s": span.seconds / span.times for name, span in spans.items()})
