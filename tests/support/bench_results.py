"""A realistic result from seeded random numbers: the values of each mode are near a known middle, some samples failed,
some are outliers.

The names of a sample's values are found by recording which ones the questions read.
"""

import functools
import random
import zlib

from bench import questions, summary
from bench import schedule as plans
from bench.model import CONTROL, Refusal, Result, Sample
from vmctl.spec.workload import Workload

MODES = ("host", "container", "vm")
METRICS = ("boot", "memory", "disk", "teardown")
MARKS = ("T0", "T1", "T4", "T5", "T6", "T7", "T8", "T9")
STEPS_S = {  # from each mark to the next one, in the order of MARKS
    "host": (0.0012, 0.0008, 0.02, 0.09, 0.5, 0.003, 0.002),
    "container": (0.0021, 0.0016, 0.021, 0.092, 0.5, 0.004, 0.011),
    "vm": (0.48, 2.1, 0.06, 0.24, 0.5, 0.08, 0.31),
}
SIZES = {"host": 9.0e6, "container": 11.0e6, "vm": 140.0e6}
TEXTS = {
    "host": {"image_digest": "sha256:" + "1" * 64},
    "container": {"image_digest": "sha256:" + "1" * 64},
    "vm": {"image_digest": "sha256:" + "1" * 64, "accelerator": "tcg"},
}
NOISE = 0.03  # standard deviation of the logarithm
SERVICE = {
    "name": "web",
    "image": "tiny",
    "command": ["httpd", "-f", "-p", "8000", "-h", "/srv"],
    "ready": {"http": {"port": 8000, "path": "/"}, "timeout_s": 60.0},
}
HOST = {
    "id": "sha256:0123456789abcdef",
    "cpu": "Example CPU @ 2.00GHz",
    "cpus": 2,
    "under_a_hypervisor": True,
    "memory_bytes": 8 * 2**30,
    "kernel": "6.1.0-1 #1 SMP",
    "kernel_command_line": "root=/dev/vda ro",
    "mitigations": {"meltdown": "Not affected"},
    "governor": None,
    "transparent_hugepages": "always [madvise] never",
    "ksm": "0",
    "cgroup_version": 2,
    "load_average": [0.1, 0.2, 0.1],
    "vmctl": "0.1.0",
    "python": "3.11.2",
    "qemu": "QEMU emulator version 7.2.0",
    "libvirt": "libvirtd (libvirt) 9.0.0",
}


class Asked(dict):
    """A mapping that has every key, and records the keys that were read."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.names = answer, set()

    def __contains__(self, name):
        self.names.add(name)
        return True

    def __missing__(self, name):
        self.names.add(name)
        return self.answer

    def get(self, name, default=None):
        return self[name]


@functools.cache
def looked_at(kind):
    """Return the names of the values and of the series that a kind's questions read, with their units."""
    values, series = {}, {}
    for question in questions.questions(kind):
        asked = Asked(1.0), Asked([1.0, 2.0])
        sample = Sample(kind=kind, mode="", round=1, started=0.0, values=asked[0], series=asked[1])
        (question.points or question.values)(sample)
        values.update(dict.fromkeys(asked[0].names, question.unit))
        series.update(dict.fromkeys(asked[1].names, question.unit))
    return values, series


def make(runs=32, seed=7, modes=MODES, metrics=METRICS, *, factor=1.0, faults=True, **named):
    """Return a result; `factor` multiplies all values, `faults` makes some samples fail."""
    work = Workload(name="web", image="tiny")
    plan = plans.make(work, modes, metrics, runs, seed)
    plan = replaced(plan, workload=SERVICE)
    chance = random.Random(f"{seed} {runs} {factor}")
    began = 1_790_000_000.0 + seed
    samples = []
    for number, step in enumerate(plan.steps):
        one = sample(step, began + number, chance, factor, plan.instances)
        samples.append(failed(one, step) if faults and step.round in (4, 17) and step.mode == "vm" else one)
    return finished(
        Result(
            id=f"{seed:08x}",
            created=began,
            host=HOST,
            explained={mode: [["what is done", f"raw step of {mode}"]] for mode in modes},
            plan=plan,
            refusals=(Refusal(mode="vm", kind="storm", reason="too little memory for 5 guests"),) if faults else (),
            samples=tuple(samples),
        ),
        **named,
    )


def finished(result, **changes):
    """Return a result with changes, and with figures computed from its samples."""
    changed = replaced(result, **changes)
    figures, ratios = summary.summarise(changed.plan, changed.samples)
    return replaced(changed, figures=figures, ratios=ratios)


def replaced(struct, **changes):
    """Return a struct with some fields changed."""
    return type(struct)(**{**{name: getattr(struct, name) for name in struct.__struct_fields__}, **changes})


def failed(one, step):
    """Return the sample as a failed one."""
    return Sample(
        kind=step.kind,
        mode=step.mode,
        round=step.round,
        started=one.started,
        error="web was not ready within 60.0 s; the last phase was: kernel <6.1>",
    )


def sample(step, started, chance, factor, instances):
    """Return a sample: each value near its mode's middle, about every twentieth an outlier."""
    known = {"kind": step.kind, "mode": step.mode, "round": step.round, "started": started}
    if step.kind == CONTROL:
        return Sample(**known, values={"work_s": 0.015 * _noise(chance)})
    names, series = looked_at(step.kind)
    return Sample(
        **known,
        marks_ns=_marks(step.mode, chance, factor),
        values={name: _value(name, unit, step.mode, chance) * factor for name, unit in names.items()},
        series={name: _series(name, unit, step.mode, chance, factor, instances) for name, unit in series.items()},
        texts=TEXTS.get(step.mode, {}),
    )


def _noise(chance):
    return chance.lognormvariate(0.0, NOISE) * (1.6 if chance.random() < 0.04 else 1.0)


def _marks(mode, chance, factor):
    now, found = 5_000_000_000_000, {}
    for name, step_s in zip(MARKS, (0.0, *STEPS_S[mode]), strict=True):
        now += round(step_s * factor * _noise(chance) * 1e9)
        found[name] = now
    return found


def _value(name, unit, mode, chance):
    share = 0.2 + (zlib.crc32(name.encode()) % 100) / 100  # a different middle for each name
    middle = {"s": sum(STEPS_S[mode]), "count": 5.0, "share": 0.5}.get(unit, SIZES[mode])
    found = middle * share * _noise(chance)
    return float(round(found)) if unit in ("bytes", "count") else found


def _series(name, unit, mode, chance, factor, instances):
    """Return a value per instance of a ladder; for available memory also one for no instance, decreasing."""
    if unit == "s":
        return [sum(STEPS_S[mode][:4]) * factor * _noise(chance) for _ in range(instances)]
    taken = [SIZES[mode] * factor * (number + 0.02 * chance.gauss(0, 1)) for number in range(instances + 1)]
    return [4e9 - each for each in taken] if "available" in name else [2e7 + each for each in taken[1:]]
