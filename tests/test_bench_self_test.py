"""`bench --self-test` with few trials. Whether this machine meets the targets is not tested."""

import json
import math
import re
import signal
import subprocess
import time

import pytest
from support.commands import free_port, refused, start, vmctl

from bench import overhead, selftest, statistics
from bench.probes import tool
from vmctl import backends
from vmctl.instances import instance
from vmctl.spec.workload import Ready, Workload

QUICK = [mode for mode in sorted(backends.modes()) if not backends.load(mode).features.own_kernel]


def made(slower, runs=30, trials=40, noise=0.005):
    """Return the measurement of a machine with known noise."""
    import random

    chance = random.Random(f"{slower} {noise}")
    factors = {"A": 1.0, "A again": 1.0, "B": slower}
    return {
        "runs": runs,
        "seed": 1,
        "trials": [
            {
                name: [0.005 * factor * chance.lognormvariate(0, noise) for _ in range(runs)]
                for name, factor in factors.items()
            }
            for _ in range(trials)
        ],
        "harness": {},
    }


def test_more_work_takes_longer():
    work = selftest.calibrate()
    assert work.more_steps > work.steps > 0
    least = [math.inf, math.inf]
    for _ in range(300):  # the least of many is without the load of others
        for i, steps in enumerate((work.steps, 4 * work.steps)):
            least[i] = min(least[i], selftest.spin_s(work.program, steps))
        if least[1] > 2 * least[0]:
            return
    pytest.fail(f"four times the work: {least}")


def test_a_trial_measures_each_contender_in_each_round():
    work = selftest.calibrate()
    found = selftest.trial(work, 3, seed=1)
    assert {name: len(seconds) for name, seconds in found.items()} == {"A": 3, "A again": 3, "B": 3}
    assert all(second > 0 for seconds in found.values() for second in seconds)


def test_a_difference_of_three_percent_is_found_in_little_noise():
    same, slower = selftest.lines(made(1.03))
    assert (same.met, slower.met) == (True, True)
    assert "of 40 trials" in slower.measured


def test_with_more_noise_it_reports_how_many_rounds_were_enough():
    same, slower = selftest.lines(made(1.03, noise=0.035))
    assert (same.met, slower.met) == (True, False)
    assert re.search(r"; with (60|90|120) rounds [\d.]+% of (20|13|10)$", slower.measured), slower


def test_with_much_noise_it_estimates_how_many_rounds_are_needed():
    same, slower = selftest.lines(made(1.03, noise=0.1))
    assert (same.met, slower.met) == (True, False)
    rounds = int(re.search(r"it would take some (\d+) rounds", slower.measured)[1])
    assert 120 < rounds < 3000


def test_joined_trials_are_longer_ones():
    trials = made(1.03, trials=5)["trials"]
    pairs = selftest.joined(trials, 2)
    assert len(pairs) == 2
    assert pairs[1]["B"] == trials[2]["B"] + trials[3]["B"]


def test_a_method_that_sees_differences_everywhere_does_not_pass():
    done = made(1.03)
    for trial in done["trials"]:
        trial["A again"] = trial["B"]
    assert selftest.lines(done)[0].met is False


def test_few_rounds_are_no_test():
    done = made(1.03, runs=10)
    assert [line.met for line in selftest.lines(done)] == [None, None]
    assert any("fewer than 30 rounds" in note for note in selftest.notes(done))


COST = {"cpu_share": {"log": 0.5}, "intervals_s": [], "late_s": {}}


def test_what_observing_adds_is_judged_by_its_interval():
    done = {**made(1.03), "harness": {"host": dict(COST), "other": {"error": "no"}}}
    for added_s, noise_s, met in ((0.00005, 1e-6, True), (0.005, 1e-6, False), (0.0002, 0.01, None)):
        pairs = [(0.1 + added_s + noise_s * (n % 5 - 2), 0.1 + noise_s * (n % 7 - 3)) for n in range(35)]
        done["harness"]["host"]["intervals_s"] = pairs
        done["harness"]["host"]["late_s"] = {"output": [added_s] * 35, "port": [1] * 35, "line": [added_s] * 5}
        _, _, output, port, line, added, waiting, *other = selftest.lines(done)
        assert output.met is (added_s <= 0.0002), output
        assert port.met is False
        assert (line.met, "too few rounds" in line.measured) == (None, True)
        assert added.met is met, added
        assert waiting.met is False
        assert [(line.measured, line.met) for line in other] == [("no", None)] * 2


@pytest.mark.parametrize("mode", QUICK)
def test_the_harness_measures_itself(own_root, mode):
    """The workload is silent for a known time, and writes the time of its output on the same clock."""
    work = tool.with_program(Workload(name="", image="tiny"))
    said = work._replace(command=(tool.PATH, "stamp", str(overhead.QUIET_MS)), ready=Ready(log="^stamp"))
    assert overhead.unwatched_s(said, mode) >= overhead.QUIET_MS / 1000
    seen = overhead.watched(said, mode)
    assert seen.interval_s >= overhead.QUIET_MS / 1000
    assert 0 < seen.output_late_s < seen.interval_s
    assert 0 < seen.late_s < seen.interval_s
    port = free_port()
    open_port = said._replace(command=(*said.command, str(port)), ready=Ready(tcp=port))
    assert overhead.watched(open_port, mode).late_s > 0
    assert 0 < overhead.cpu_share(said, mode) < 1


# The command


def test_the_command(own_root, tmp_path):
    path = tmp_path / "self-test.json"
    done = vmctl("bench", "--self-test", "--trials", "2", "--runs", "30", "--seed", "5", "--out", str(path))
    assert done.code in (0, 1), done
    assert "A called different from A" in done.out
    assert "of 2 trials" in done.out
    document = json.loads(path.read_text())
    assert [len(trial["B"]) for trial in document["trials"]] == [30, 30]
    assert set(document["harness"]) == set(QUICK)
    lines = selftest.lines(document)
    assert [line.measured in done.out for line in lines] == [True] * len(lines)
    pairs = selftest.pairs(document["trials"][0], "B")
    assert statistics.ratio(pairs) > 0


def test_a_wrong_call():
    assert "--trials has to be between 1 and 10,000, not 0" in refused("bench", "--self-test", "--trials", "0")


def test_ctrl_c_ends_it(own_root):
    process = start("bench", "--self-test", "--trials", "10000")
    with pytest.raises(subprocess.TimeoutExpired):  # it is still measuring
        process.wait(2)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"interrupted" in errors
    assert b"Traceback" not in errors
    assert out == b""


def test_ctrl_c_while_the_harness_is_measured_leaves_nothing(own_root):
    process = start("bench", "--self-test", "--trials", "40", "--runs", "1")
    deadline = time.monotonic() + 60
    while not any(name.startswith("bench-harness-") for name in instance.names()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"interrupted" in errors
    assert out == b""
    assert instance.names() == []
