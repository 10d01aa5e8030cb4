"""Test the method on this machine: does it report differences that do not exist, and does it find one of 3 %?

Fixed work of about 5 ms in a fresh process is measured as A, once more as A, and with 3 % more work as B, in random
order in every round. A trial is like a measurement: some rounds, and a verdict. The result is the share of trials that
call A different from A, and the share that finds B slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench import leftovers, manifest, statistics
from bench.peers.command import time_command
from bench.probes import tool
from bench.schedule import rounds
from bench.statistics import BAND, VERDICTS, Pairs
from vmctl import backends
from vmctl.errors import UnavailableError, VmctlError
from vmctl.programs import CommandError, module, run
from vmctl.spec.workload import Workload

FORMAT = "vmctl bench self-test 2"
TRIALS, RUNS = 200, 30
IMAGE = "tiny"  # of the workload that measures the harness
WORK_S = 0.005
SOME_STEPS, CALIBRATIONS = 3_000_000, 50
AT_MOST_FALSE, AT_LEAST_FOUND = 0.05, 0.95
AT_MOST_ADDED_S, AT_MOST_CPU = 0.0002, 0.01
HARNESS_ROUNDS = 40  # at most, and no more than trials
FEWEST = 10  # trials, also joined ones; with fewer a share means little
_FIRST, _AGAIN, _SLOWER = "A", "A again", "B"
_NAMES = (_FIRST, _AGAIN, _SLOWER)

Progress = Callable[[str], None]
Trial = dict[str, list[float]]  # contender -> its seconds, round by round


class Work(NamedTuple):
    """The contenders: a program, and how many steps of work take WORK_S, and 3 % more."""

    program: str
    steps: int
    more_steps: int

    def seconds(self, name: str) -> float:
        """Return the seconds from the start of a fresh process to its first byte, which it writes after its work."""
        return spin_s(self.program, self.more_steps if name == _SLOWER else self.steps)


class Line(NamedTuple):
    """The result of one test; `met` is None if the test could not be made."""

    what: str
    target: str
    measured: str
    met: bool | None


def measure(trials: int, runs: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Return everything measured, for JSON. Raises UnavailableError if no C compiler is installed."""
    progress("calibrating")
    work = calibrate()
    measured = []
    for number in range(trials):
        progress(f"trial {number + 1} of {trials}")
        measured.append(trial(work, runs, seed + number))
    return {
        "format": FORMAT,
        "host": manifest.facts(),
        "seed": seed,
        "runs": runs,
        "steps": {_FIRST: work.steps, _SLOWER: work.more_steps},
        "trials": measured,
        "harness": _harness(min(HARNESS_ROUNDS, trials), progress),
    }


def calibrate() -> Work:
    """Return the work: the steps that take WORK_S, and 3 % more time, including the start of the process."""
    program = tool.program()
    least = [min(spin_s(program, steps) for _ in range(CALIBRATIONS)) for steps in (0, SOME_STEPS)]
    step_s = (least[1] - least[0]) / SOME_STEPS
    return Work(program, round((WORK_S - least[0]) / step_s), round(((1 + BAND) * WORK_S - least[0]) / step_s))


def spin_s(program: str, steps: int) -> float:
    """Return the seconds from the start of a fresh process to its first byte, written after `steps` steps of work."""
    return time_command([program, "spin", str(steps)]).first_byte_s()


def trial(work: Work, runs: int, seed: int) -> Trial:
    """Measure all three contenders in `runs` rounds, each in random order."""
    seconds: Trial = {name: [] for name in _NAMES}
    for turn in rounds(_NAMES, runs, seed):
        for name in turn:
            seconds[name].append(work.seconds(name))
    return seconds


def verdicts(trials: Sequence[Trial], name: str, seed: int) -> list[str]:
    """Return each trial's verdict on a contender compared with A: keys of VERDICTS."""
    found = []
    for number, one in enumerate(trials):
        interval = statistics.ratio_interval(pairs(one, name), seed + number)
        found.append(statistics.verdict(interval))
    return found


def pairs(one: Trial, name: str) -> Pairs:
    """Return pairs of seconds, of a contender and of A, round by round."""
    return list(zip(one[name], one[_FIRST], strict=True))


def lines(done: dict[str, Any]) -> list[Line]:
    """Return the result of each test, with its target."""
    trials, seed = done["trials"], done["seed"]
    same, slower = (verdicts(trials, name, seed) for name in (_AGAIN, _SLOWER))
    false, found = _share(same, "more", "less"), _share(slower, "more")
    enough = done["runs"] >= statistics.ENOUGH and len(trials) >= FEWEST
    return [
        Line(
            "A called different from A",
            f"<= {AT_MOST_FALSE:.0%}",
            _counted(same, "more", "less"),
            false <= AT_MOST_FALSE if enough else None,
        ),
        Line(
            f"{BAND:.0%} more work found",
            f">= {AT_LEAST_FOUND:.0%}",
            _counted(slower, "more") + _more_runs(done, found),
            found >= AT_LEAST_FOUND if enough else None,
        ),
        *_harness_lines(done["harness"]),
    ]


def notes(done: dict[str, Any]) -> list[str]:
    """Return the notes needed to read the lines."""
    trials, seed = done["trials"], done["seed"]
    every = {name: [value for one in trials for value in one[name]] for name in _NAMES}
    middle = statistics.median(every[_FIRST])
    scatter = statistics.TO_SIGMA * statistics.deviation(every[_FIRST]) / middle
    texts = [
        f"{len(trials)} trials of {done['runs']} rounds, seed {seed}; all rounds together: A {middle * 1000:.2f} ms, "
        f"scaled MAD {scatter:.1%}, {sum(statistics.outliers(every[_FIRST])) / len(every[_FIRST]):.1%} outliers, "
        f"A again/A {statistics.ratio(_all(trials, _AGAIN)):.4f}, B/A {statistics.ratio(_all(trials, _SLOWER)):.4f}"
    ]
    for name in (_AGAIN, _SLOWER):
        found = verdicts(trials, name, seed)
        counts = ", ".join(f"{VERDICTS[word]} {found.count(word)}" for word in VERDICTS if word in found)
        texts.append(f"{name} compared with A: {counts}")
    if done["runs"] < statistics.ENOUGH:
        texts.append(f"fewer than {statistics.ENOUGH} rounds give no interval, and so no verdict")
    if len(trials) < FEWEST:
        texts.append(f"fewer than {FEWEST} trials are too few for a share")
    return texts


def _all(trials: Sequence[Trial], name: str) -> Pairs:
    return [pair for one in trials for pair in pairs(one, name)]


def _share(words: Sequence[str], *wanted: str) -> float:
    return sum(word in wanted for word in words) / len(words)


def _counted(words: Sequence[str], *wanted: str) -> str:
    return f"{_share(words, *wanted):.1%} of {len(words)} trials"


def _more_runs(done: dict[str, Any], found: float) -> str:
    """Return how many rounds would be enough if these were too few; "" if they were enough.

    It joins consecutive trials to longer ones. If even the longest do not find the difference, it estimates the number
    from all rounds together.
    """
    trials, runs, seed = done["trials"], done["runs"], done["seed"]
    if found >= AT_LEAST_FOUND:
        return ""
    for count in range(2, len(trials) // FEWEST + 1):
        share = _share(verdicts(joined(trials, count), _SLOWER, seed), "more")
        if share >= AT_LEAST_FOUND:
            return f"; with {runs * count} rounds {share:.1%} of {len(trials) // count}"
    needed = statistics.runs_needed(_all(trials, _AGAIN), seed)
    return f"; it would take some {needed} rounds" if needed else ""


def joined(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Return each `count` consecutive trials joined to one; a rest is left out."""
    groups = [trials[start : start + count] for start in range(0, len(trials) - count + 1, count)]
    return [{name: [value for one in group for value in one[name]] for name in _NAMES} for group in groups]


# What measuring itself costs


def _harness(rounds: int, progress: Progress) -> dict[str, Any]:
    """Return what observing costs in each mode whose workloads read the host's clock, or an error."""
    found: dict[str, Any] = {}
    for mode in backends.modes():
        if backends.load(mode).features.own_kernel:
            continue
        progress(f"what measuring costs: {mode}")
        try:
            found[mode] = _cost(mode, rounds)
        except VmctlError as error:
            found[mode] = {"error": str(error)}
    return found


def _cost(mode: str, rounds: int) -> dict[str, Any]:
    from json import dumps, loads

    work = tool.with_program(Workload(name="harness", image=IMAGE))
    name = f"bench-harness-{os.urandom(3).hex()}"
    request = {
        "name": name,
        "mode": mode,
        "image": work.image,
        "program": tool.PATH,
        "rounds": rounds,
    }
    try:
        env = leftovers.marked("self-test", name)
        argv = module("bench.overhead")
        output = run(argv, stdin=dumps(request).encode(), env=env, timeout_s=300.0)[1]
    except CommandError as error:
        raise UnavailableError(str(error), detail=error.output) from error
    finally:  # Ctrl-C kills the worker, which then cannot remove its instances
        leftovers.end("self-test", name)
        leftovers.remove(name)
    answer: dict[str, Any] = loads(output)
    return answer


def _harness_lines(harness: dict[str, Any]) -> list[Line]:
    found = []
    for mode, cost in harness.items():
        added, waiting = f"delay by observing, {mode}", f"CPU while waiting, {mode}"
        targets = f"<= {AT_MOST_ADDED_S * 1000:g} ms", f"<= {AT_MOST_CPU:.0%}"
        if "error" in cost:
            found += [Line(added, targets[0], cost["error"], None), Line(waiting, targets[1], cost["error"], None)]
            continue
        for name, what in (("output", "first byte"), ("port", "open port"), ("line", "line in the log")):
            found.append(_late(f"delay until the host sees the {what}, {mode}", targets[0], cost["late_s"][name]))
        found.append(_added(f"start to open port, added by observing, {mode}", targets[0], cost["intervals_s"]))
        found += [
            Line(f"{waiting}, {probe}", targets[1], f"{share:.1%}", share <= AT_MOST_CPU)
            for probe, share in cost["cpu_share"].items()
        ]
    return found


def _late(what: str, target: str, seconds: Sequence[float]) -> Line:
    """Judge the median delay from an event to its observation."""
    median_s, interval = statistics.median(seconds), statistics.median_interval(seconds)
    if interval is None:
        return Line(what, target, f"{median_s * 1000:.2f} ms, too few rounds", None)
    return Line(what, target, _milliseconds(median_s, interval, len(seconds)), median_s <= AT_MOST_ADDED_S)


def _added(what: str, target: str, intervals: Pairs) -> Line:
    """Judge how much longer observed intervals are than unobserved ones; on a busy machine this stays undecided."""
    seconds = statistics.median([one for one, _ in intervals]) - statistics.median([other for _, other in intervals])
    interval = statistics.difference_interval(intervals)
    if interval is None:
        return Line(what, target, f"{seconds * 1000:.2f} ms, too few rounds", None)
    met = True if interval.high <= AT_MOST_ADDED_S else False if interval.low > AT_MOST_ADDED_S else None
    return Line(what, target, _milliseconds(seconds, interval, len(intervals)), met)


def _milliseconds(seconds: float, interval: statistics.Interval, rounds: int) -> str:
    ends = f"{interval.low * 1000:.2f} to {interval.high * 1000:.2f}"
    return f"{seconds * 1000:.2f} ms ({ends}), {rounds} rounds"
