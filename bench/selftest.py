"""Does this machine, with this method, show a difference where there is none, and one of 3 % where there is one?

Fixed work of some 5 ms, a fresh process each time, is measured as A, once more as A, and with 3 % more time to spend
as B, in random order in every round. A trial is what a measurement is: some rounds, and a verdict. Of many trials the
share is counted that calls A and A different, and the share that finds B slower.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench import leftovers, manifest, statistics
from bench.peers.command import time_command
from bench.probes import tool
from bench.schedule import rounds
from bench.statistics import BAND, VERDICTS, Pairs
from vmctl import backends
from vmctl.errors import UnavailableError, VmctlError
from vmctl.run import CommandError, run
from vmctl.workload import Workload

FORMAT = "vmctl bench self-test 2"
TRIALS, RUNS = 200, 30
IMAGE = "tiny"  # what the harness is measured with
WORK_S = 0.005
SOME_STEPS, CALIBRATIONS = 3_000_000, 50
AT_MOST_FALSE, AT_LEAST_FOUND = 0.05, 0.95
AT_MOST_ADDED_S, AT_MOST_CPU = 0.0002, 0.01
HARNESS_ROUNDS = 40  # at most, and no more than trials
FEWEST = 10  # trials, joined ones too; of fewer a share says little
_FIRST, _AGAIN, _SLOWER = "A", "A again", "B"
_NAMES = (_FIRST, _AGAIN, _SLOWER)

Progress = Callable[[str], None]
Trial = dict[str, list[float]]  # of each contender the seconds, round by round


class Work(NamedTuple):
    """The contender: a program, and how often it has to count for WORK_S, and for 3 % more."""

    program: str
    steps: int
    more_steps: int

    def seconds(self, name: str) -> float:
        """Return how long a fresh process takes to its first byte, which it writes when its work is done."""
        return spin_s(self.program, self.more_steps if name == _SLOWER else self.steps)


class Line(NamedTuple):
    """One thing that was tested; `met` is None where it could not be."""

    what: str
    target: str
    measured: str
    met: bool | None


def measure(trials: int, runs: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Return everything measured, for JSON. Raises UnavailableError where there is no C compiler."""
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
    """Return the work: the count for WORK_S, and the one that takes 3 % longer, the start of the process included."""
    program = tool.program()
    least = [min(spin_s(program, steps) for _ in range(CALIBRATIONS)) for steps in (0, SOME_STEPS)]
    step_s = (least[1] - least[0]) / SOME_STEPS
    return Work(program, round((WORK_S - least[0]) / step_s), round(((1 + BAND) * WORK_S - least[0]) / step_s))


def spin_s(program: str, steps: int) -> float:
    """Return the seconds from the start of a fresh process to its first byte, written after so many steps of work."""
    return time_command([program, "spin", str(steps)]).first_byte_s()


def trial(work: Work, runs: int, seed: int) -> Trial:
    """Measure all three, `runs` times, in a random order each time."""
    seconds: Trial = {name: [] for name in _NAMES}
    for turn in rounds(_NAMES, runs, seed):
        for name in turn:
            seconds[name].append(work.seconds(name))
    return seconds


def verdicts(trials: Sequence[Trial], name: str, seed: int) -> list[str]:
    """Return what each trial says of a contender beside the first: keys of VERDICTS."""
    found = []
    for number, one in enumerate(trials):
        interval = statistics.ratio_interval(pairs(one, name), seed + number)
        found.append(statistics.verdict(interval))
    return found


def pairs(one: Trial, name: str) -> Pairs:
    """Return a contender's seconds beside those of the first, round by round."""
    return list(zip(one[name], one[_FIRST], strict=True))


def lines(done: dict[str, Any]) -> list[Line]:
    """Return what was tested, against its target."""
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
    """Return what has to be known to read the lines."""
    trials, seed = done["trials"], done["seed"]
    every = {name: [value for one in trials for value in one[name]] for name in _NAMES}
    middle = statistics.median(every[_FIRST])
    scatter = statistics.TO_SIGMA * statistics.deviation(every[_FIRST]) / middle
    said = [
        f"{len(trials)} trials of {done['runs']} rounds, seed {seed}; all rounds together: A {middle * 1000:.2f} ms, "
        f"scaled MAD {scatter:.1%}, {sum(statistics.outliers(every[_FIRST])) / len(every[_FIRST]):.1%} outliers, "
        f"A again/A {statistics.ratio(_all(trials, _AGAIN)):.4f}, B/A {statistics.ratio(_all(trials, _SLOWER)):.4f}"
    ]
    for name in (_AGAIN, _SLOWER):
        found = verdicts(trials, name, seed)
        said.append(f"{name} beside A: " + ", ".join(f"{VERDICTS[w]} {found.count(w)}" for w in VERDICTS if w in found))
    if done["runs"] < statistics.ENOUGH:
        said.append(f"fewer than {statistics.ENOUGH} rounds have no interval, and so no verdict")
    if len(trials) < FEWEST:
        said.append(f"fewer than {FEWEST} trials are too few for a share")
    return said


def _all(trials: Sequence[Trial], name: str) -> Pairs:
    return [pair for one in trials for pair in pairs(one, name)]


def _share(words: Sequence[str], *wanted: str) -> float:
    return sum(word in wanted for word in words) / len(words)


def _counted(words: Sequence[str], *wanted: str) -> str:
    return f"{_share(words, *wanted):.1%} of {len(words)} trials"


def _more_runs(done: dict[str, Any], found: float) -> str:
    """Return how many rounds it would take where these were too few: tried with trials that follow each other as one.

    Where even the longest of these do not find it, the number is estimated from all rounds together.
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
    """Return each `count` trials as one; what is left at the end is left out."""
    groups = [trials[start : start + count] for start in range(0, len(trials) - count + 1, count)]
    return [{name: [value for one in group for value in one[name]] for name in _NAMES} for group in groups]


# What measuring itself costs


def _harness(rounds: int, progress: Progress) -> dict[str, Any]:
    """Return, for each mode whose workloads read the host's clock, what observing adds and takes, or why not."""
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
        said = run([sys.executable, "-m", "bench.overhead"], stdin=dumps(request).encode(), env=env, timeout_s=300.0)[1]
    except CommandError as error:
        raise UnavailableError(str(error), detail=error.output) from error
    finally:  # Ctrl-C kills the process that measures, which then cannot remove what it has started
        leftovers.end("self-test", name)
        leftovers.remove(name)
    answer: dict[str, Any] = loads(said)
    return answer


def _harness_lines(harness: dict[str, Any]) -> list[Line]:
    found = []
    for mode, cost in harness.items():
        added, waiting = f"what watching adds, {mode}", f"CPU while waiting, {mode}"
        targets = f"<= {AT_MOST_ADDED_S * 1000:g} ms", f"<= {AT_MOST_CPU:.0%}"
        if "error" in cost:
            found += [Line(added, targets[0], cost["error"], None), Line(waiting, targets[1], cost["error"], None)]
            continue
        for name, what in (("output", "a first byte"), ("port", "an open port"), ("line", "a line in its log")):
            found.append(_late(f"{what}, seen late, {mode}", targets[0], cost["late_s"][name]))
        found.append(_added(f"start to open port, watched less unwatched, {mode}", targets[0], cost["intervals_s"]))
        found += [
            Line(f"{waiting}, {probe}", targets[1], f"{share:.1%}", share <= AT_MOST_CPU)
            for probe, share in cost["cpu_share"].items()
        ]
    return found


def _late(what: str, target: str, seconds: Sequence[float]) -> Line:
    """Judge by the median how much later something is seen than it happens."""
    median_s, interval = statistics.median(seconds), statistics.median_interval(seconds)
    if interval is None:
        return Line(what, target, f"{median_s * 1000:.2f} ms, too few rounds", None)
    return Line(what, target, _milliseconds(median_s, interval, len(seconds)), median_s <= AT_MOST_ADDED_S)


def _added(what: str, target: str, intervals: Pairs) -> Line:
    """Judge by how much observed intervals are longer than unobserved ones; on a busy machine that cannot be told."""
    seconds = statistics.median([one for one, _ in intervals]) - statistics.median([other for _, other in intervals])
    interval = statistics.difference_interval(intervals)
    if interval is None:
        return Line(what, target, f"{seconds * 1000:.2f} ms, too few rounds", None)
    met = True if interval.high <= AT_MOST_ADDED_S else False if interval.low > AT_MOST_ADDED_S else None
    return Line(what, target, _milliseconds(seconds, interval, len(intervals)), met)


def _milliseconds(seconds: float, interval: statistics.Interval, rounds: int) -> str:
    ends = f"{interval.low * 1000:.2f} to {interval.high * 1000:.2f}"
    return f"{seconds * 1000:.2f} ms ({ends}), {rounds} rounds"
