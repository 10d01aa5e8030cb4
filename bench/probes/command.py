"""`vmctl exec`: a small command in a running instance, as a user would type it, until its end."""

from __future__ import annotations

from time import monotonic_ns

from bench.probes import Request, Seen, tool
from bench.probes.driven import START_S, driven
from bench.questions import Question
from vmctl.programs import module, run
from vmctl.spec.workload import Workload

ROUNDS = None
TIMES = 5
_EXEC_S = 60.0
_BYTES = "4096"  # of the program that waits meanwhile; it takes them at its first step, which never comes

QUESTIONS = (
    Question(
        "exec.command_s",
        "a command in a running instance",
        "s",
        lambda sample: sample.series.get("command_s", ()),
        headline=True,
        meaning="From the start of `vmctl exec` on the host to its end, for a static program that does nothing. It "
        "includes the interpreter of vmctl, which is the same in every mode.",
    ),
)


def prepare(work: Workload) -> Workload:
    """Return a workload that waits, with the probe program in its image. Raises VmctlError."""
    return tool.with_program(work)._replace(command=(tool.PATH, "hold", _BYTES))


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return START_S + TIMES * _EXEC_S


def observe(request: Request) -> Seen:
    """Return the seconds of each of some commands. Raises errors of vmctl.errors."""
    argv = module("vmctl", "exec", "--no-stdin", request.name, "--", tool.PATH, "nothing")
    found = []
    with driven(request) as one:
        for _ in range(TIMES):
            begin_ns = monotonic_ns()
            run(argv, timeout_s=_EXEC_S)
            found.append((monotonic_ns() - begin_ns) / 1e9)
        texts = tool.texts(one.inst)
    return Seen(dict(one.inst.timeline.marks_ns), {}, {"command_s": found}, texts)
