"""Fixed work for one processor, by the same static program in every mode."""

from __future__ import annotations

from bench.probes import Request, Seen, tool
from bench.questions import Question, value
from vmctl.spec.workload import Workload

ROUNDS = None
COUNTS = {"sort": 3000, "integer": 200_000_000, "memory": 2_000_000}  # about 0.2 s each without emulation

_CLOCK = (
    "From the line `begin` to the line `end` of the program's output, by the host's clock; each line wakes the host. "
    "The program stays on the highest processor it may use. In a guest this is a vCPU, which the host may still move."
)

QUESTIONS = (
    Question(
        "cpu.sort_s",
        "processor: sorting",
        "s",
        value("sort_s"),
        headline=True,
        meaning=f"1,024 numbers put in order by heapsort, {COUNTS['sort']:,} times. {_CLOCK}",
    ),
    Question(
        "cpu.integer_s",
        "processor: multiplying",
        "s",
        value("integer_s"),
        meaning=f"{COUNTS['integer']:,} dependent multiplications in registers. Each waits for the one before, which"
        f" hides the cost of an emulator. {_CLOCK}",
    ),
    Question(
        "cpu.memory_s",
        "processor: memory-bound work",
        "s",
        value("memory_s"),
        meaning=f"{COUNTS['memory']:,} dependent loads of a cache line each, in random order over 32 MiB. {_CLOCK}",
    ),
)


def prepare(work: Workload) -> Workload:
    """Return the workload with the probe program in its image and as its command. Raises VmctlError."""
    return tool.working(work, COUNTS)


limit_s = tool.limit_s


def observe(request: Request) -> Seen:
    """Return the seconds of each work. Raises errors of vmctl.errors."""
    spans, seen = tool.worked(request)
    return seen._replace(values={f"{name}_s": span.seconds for name, span in spans.items()})
