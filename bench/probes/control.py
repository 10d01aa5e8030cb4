"""The control: the same small piece of work as a plain process in every round. It belongs to no mode.

If it takes longer in one round than in another, the machine is the cause, not the workload.
"""

from __future__ import annotations

import os
import sys
from time import monotonic_ns

from bench.probes import Request, Seen
from bench.questions import Question, value
from vmctl.spec.workload import Workload

QUESTIONS = (
    Question(
        "control.work_s",
        "the control: fixed work as a plain process",
        "s",
        value("work_s"),
        meaning="A fresh Python interpreter that adds up 200,000 numbers, from its start to its end. It is the same in "
        "every round and for every workload.",
    ),
)
ROUNDS = None
_WORK = "n = 0\nfor i in range(200_000): n += i * i % 7"  # about 15 ms


def prepare(work: Workload) -> Workload:
    """Return the workload unchanged: the control does not run it."""
    return work


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return 60.0


def observe(request: Request) -> Seen:
    """Return how long a fresh interpreter takes for the work, from its start to its end."""
    begin_ns = monotonic_ns()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", _WORK], os.environ)
    _, _, used = os.wait4(pid, 0)
    end_ns = monotonic_ns()
    values = {"work_s": (end_ns - begin_ns) / 1e9, "cpu_s": used.ru_utime + used.ru_stime}
    return Seen({"T0": begin_ns, "T8": end_ns}, values, {}, {})
