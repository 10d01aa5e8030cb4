"""A running measurement: it follows the plan step by step, and every sample is on disk before the next one is taken.

Its folder contains `plan.json`, `samples.jsonl` with one line per sample, and at the end `result.json`. A measurement
that was interrupted by Ctrl-C, SIGKILL or a power cut can be resumed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from statistics import median
from typing import Any

import msgspec

from bench import folder as folders
from bench import leftovers, manifest, result, summary
from bench.model import CONTROL, Plan, Refusal, Result, Sample, Step, Struct
from bench.probes import Request
from vmctl import backends, records
from vmctl.errors import SpecError, VmctlError
from vmctl.linux.filetree import write_atomic
from vmctl.programs import CommandError, module, run
from vmctl.spec.units import format_seconds
from vmctl.spec.workload import Workload

PLAN, SAMPLES = "plan.json", "samples.jsonl"
_KEYS = ("workload", "head", "options", "work", "choices")  # of the plan's file; the last two are of vmctl 0.1
_OLD_OPTIONS = {"VMCTL_ACCEL": "accel", "VMCTL_CONNECT": "connect"}  # how they were kept by vmctl 0.1
Progress = Callable[[str], None]
# kind of sample -> seconds in a container or on the host, and in an emulated guest (medians of bench/reference)
USUAL_S = {
    "start": (0.3, 3.6),
    "control": (0.1, 0.1),
    "load": (0.8, 13.0),
    "ladder": (3.0, 23.0),
    "writes": (0.3, 6.0),
    "cpu": (1.1, 5.5),
    "syscall": (1.0, 10.0),
    "command": (1.0, 5.0),
    "io": (4.5, 12.0),
}


class Head(Struct, frozen=True):
    """What is known before the first sample."""

    id: str
    created: float
    host: dict[str, object]
    explained: dict[str, list[list[str]]]
    plan: Plan
    refusals: tuple[Refusal, ...]


class Session:
    """One measurement in its folder."""

    def __init__(
        self, folder: str, work: Workload, head: Head, samples: list[Sample], options: Mapping[str, str] = {}
    ) -> None:
        self.folder, self.work, self.head, self.samples = folder, work, head, samples
        self.options = options  # of the modes; a resumed measurement has to use the same ones
        self._prepared: dict[str, Workload] = {}
        self._unprepared: dict[str, str] = {}  # kind -> why it could not be prepared

    def follow(self, progress: Progress) -> None:
        """Take every sample that is still missing.

        Raises VmctlError if an instance cannot be removed, ConflictError if another vmctl is measuring into the
        folder, OSError if a sample cannot be written.
        """
        with folders.held(self.folder):
            for name in leftovers.end(self.head.id):  # workers that outlived a killed `vmctl bench`
                leftovers.remove(name)
            done = {(one.kind, one.mode, one.round) for one in self.samples}
            left = [step for step in self.head.plan.steps if (step.kind, step.mode, step.round) not in done]
            for number, step in enumerate(left):
                progress(f"{_describe(step)}, {self._left(left[number:])}")
                self._keep(self._take(step))

    def result(self) -> Result:
        """Return the measurement with its figures."""
        plan, samples = self.head.plan, tuple(self.samples)
        figures, ratios = summary.summarise(plan, samples)
        known = {name: getattr(self.head, name) for name in self.head.__struct_fields__}
        return Result(**known, samples=samples, figures=figures, ratios=ratios)

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        with open(os.path.join(self.folder, SAMPLES), "ab") as file:
            file.write(msgspec.json.encode(sample) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _take(self, step: Step) -> Sample:
        """Measure one step in a worker process, and remove its instances. A failure is a sample with the reason."""
        started, name = time.time(), f"bench-{step.mode or step.kind}-{os.urandom(3).hex()}"
        known = {"kind": step.kind, "mode": step.mode, "round": step.round, "started": started}
        work = self._work(step.kind)
        if work is None:
            return Sample(**known, error=self._unprepared[step.kind])  # type: ignore[arg-type]
        plan = self.head.plan
        cold, options = plan.cold and step.kind != CONTROL, _suited(step.mode, self.options)
        request = Request(work, name, step.mode, step.round < 1, plan.instances, cold, options)
        values = {**request._asdict(), "kind": step.kind, "workload": work.to_json()}
        del values["work"]
        probe = import_module(f"bench.probes.{step.kind}")
        limit_s = plan.time_limit_s or probe.limit_s(work, plan.instances)
        argv, whole = module("bench.worker"), False
        try:
            env = leftovers.marked(self.head.id, name)
            _, seen, _ = run(argv, stdin=msgspec.json.encode(values), env=env, timeout_s=limit_s, outlives=True)
            whole = True
            return msgspec.convert({**known, **msgspec.json.decode(seen)}, Sample)
        except CommandError as error:
            return Sample(**known, error=_why(error, limit_s))  # type: ignore[arg-type]
        except msgspec.MsgspecError as error:
            return Sample(**known, error=f"the worker wrote no valid sample: {error}")  # type: ignore[arg-type]
        finally:
            if not whole:  # end it before its instances are removed, since it might still make some
                leftovers.end(self.head.id, name)
            leftovers.remove(name)

    def _work(self, kind: str) -> Workload | None:
        """Return the workload for a kind of sample, which is prepared once; None if that failed."""
        if kind not in self._prepared and kind not in self._unprepared:
            try:
                self._prepared[kind] = import_module(f"bench.probes.{kind}").prepare(self.work)
            except VmctlError as error:
                self._unprepared[kind] = " ".join(filter(None, [str(error), error.detail]))
        return self._prepared.get(kind)

    def _left(self, steps: list[Step]) -> str:
        """Return how long these steps may take, estimated from the samples taken so far."""
        times = self._durations()
        if any((step.kind, step.mode) not in times for step in steps):
            return f"{len(steps)} samples left"
        left_s = sum(median(times[step.kind, step.mode]) for step in steps)
        return f"about {format_seconds(left_s)} left" if left_s >= 1 else "less than 1 s left"

    def _durations(self) -> dict[tuple[str, str], list[float]]:
        """Return the seconds from the start of each sample to the start of the next one, by kind and mode."""
        found: dict[tuple[str, str], list[float]] = {}
        ends = [one.started for one in self.samples[1:]] + [time.time()]
        for one, end in zip(self.samples, ends, strict=False):
            found.setdefault((one.kind, one.mode), []).append(end - one.started)
        return found


def estimate_s(plan: Plan) -> float:
    """Return how long a plan takes on the reference machine, which emulates guests."""
    boots = {mode: backends.load(mode).features.own_kernel for mode in plan.modes}
    return sum(USUAL_S.get(step.kind, (2.0, 12.0))[boots.get(step.mode, False)] for step in plan.steps)


def _suited(mode: str, options: Mapping[str, str]) -> dict[str, str]:
    return backends.suited(mode, options) if mode else {}  # the control has no mode


def begin(
    folder: str, work: Workload, plan: Plan, refusals: tuple[Refusal, ...], options: Mapping[str, str] | None = None
) -> Session:
    """Make the folder of a new measurement. Raises SpecError if it contains a measurement or is not writable."""
    folders.make(folder)
    with folders.held(folder):
        path = os.path.join(folder, PLAN)
        if os.path.exists(path):
            raise SpecError(
                f"{folder} already contains a measurement",
                hint=f"`vmctl bench --resume {folder}` continues it; --out DIR chooses another folder",
            )
        options = options or {}
        head = _head(work, plan, refusals, options)
        try:
            kept = records.versioned({"workload": records.plain(work), "head": head, "options": options})
            write_atomic(path, msgspec.json.format(msgspec.json.encode(kept)))
        except OSError as error:
            raise VmctlError(
                f"cannot write {path}: {error.strerror}", hint="`--out DIR` chooses another folder"
            ) from None
    return Session(folder, work, head, [], options)


def _head(work: Workload, plan: Plan, refusals: tuple[Refusal, ...], options: Mapping[str, str]) -> Head:
    explained = {mode: _explained(work, mode, options) for mode in plan.modes}
    return Head(
        id=os.urandom(4).hex(),
        created=time.time(),
        host=manifest.facts(),
        explained=explained,
        plan=plan,
        refusals=refusals,
    )


def resume(folder: str) -> Session:
    """Return the interrupted measurement in a folder.

    An incomplete last line, left by a power cut, is removed. Raises SpecError if the folder contains no measurement or
    a damaged one, ConflictError if another process is measuring into it.
    """
    try:
        with folders.held(folder):
            kept = records.checked_format(msgspec.json.decode(result.content(os.path.join(folder, PLAN))), "it")
            records.refuse_unknown(kept, _KEYS, "it")
            head, options = msgspec.convert(kept["head"], Head), _options(kept)
            return Session(folder, _workload(kept), head, _samples(os.path.join(folder, SAMPLES)), options)
    except (FileNotFoundError, NotADirectoryError):
        raise SpecError(
            f"{folder} contains no measurement to resume", hint="`--resume` takes a folder that contains plan.json"
        ) from None
    except OSError as error:
        raise SpecError(f"{error.filename} cannot be read: {error.strerror}") from None
    except records.UnreadableError as error:
        raise SpecError(f"{folder}/{PLAN} cannot be read: {error}", hint=error.hint) from None
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"{folder}/{PLAN} is damaged: {error}", hint="measure again into another folder") from None


def _workload(kept: dict[str, Any]) -> Workload:
    """Return the workload of a plan's file; vmctl 0.1 kept it as a text."""
    return (
        Workload.from_json(msgspec.convert(kept["work"], str))
        if "work" in kept
        else Workload.from_values(kept["workload"])
    )


def _options(kept: dict[str, Any]) -> dict[str, str]:
    """Return the options of a plan's file; vmctl 0.1 kept them as variables of the environment."""
    options = msgspec.convert(kept.get("options", kept.get("choices", {})), dict[str, str])
    return {_OLD_OPTIONS.get(name, name): text for name, text in options.items()}


def _samples(path: str) -> list[Sample]:
    try:
        content = result.content(path)
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    try:
        return [msgspec.json.decode(line, type=Sample) for line in whole.splitlines()]
    except msgspec.MsgspecError as error:
        raise SpecError(f"{path} is damaged: {error}", hint="measure again into another folder") from None


def _explained(work: Workload, mode: str, options: Mapping[str, str]) -> list[list[str]]:
    """Return every host step of a start in this mode, as `up --explain` prints them."""
    return [[step.what, step.raw] for step in backends.load(mode, _suited(mode, options)).explain(work)]


def _describe(step: Step) -> str:
    return f"{'warming up' if step.round < 1 else f'round {step.round}'}: {step.kind} {step.mode}".rstrip()


def _why(error: CommandError, limit_s: float) -> str:
    """Return why the worker gave no sample."""
    if error.output.startswith("did not end within"):
        return f"the sample did not end within {limit_s:g} s, its time limit"
    if error.returncode < 0:
        return f"the worker was killed by signal {-error.returncode}"
    last = (error.output.strip().splitlines() or ["no message"])[-1]
    return f"the worker failed with code {error.returncode}: {last}"
