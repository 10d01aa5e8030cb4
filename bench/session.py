"""A measurement under way: the plan followed step by step, every sample on disk before the next one is taken.

Its folder holds `plan.json`, one line per sample in `samples.jsonl`, and at the end `result.json`. A measurement that
was interrupted, by Ctrl-C, by SIGKILL or by a power cut, is taken up again where it stopped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from statistics import median
from typing import Any

import msgspec

from bench import folder as folders
from bench import leftovers, manifest, summary
from bench.model import CONTROL, Plan, Refusal, Result, Sample, Step, Struct
from bench.probes import Request
from vmctl import backends, records
from vmctl.errors import SpecError, VmctlError
from vmctl.linux.filetree import write_atomic
from vmctl.run import CommandError, run
from vmctl.units import format_seconds
from vmctl.workload import Workload

PLAN, SAMPLES = "plan.json", "samples.jsonl"
_KEYS = ("workload", "head", "options", "work", "choices")  # of the plan's file; the last two are of vmctl 0.1
_OLD_OPTIONS = {"VMCTL_ACCEL": "accel", "VMCTL_CONNECT": "connect"}  # how they were kept by vmctl 0.1
Progress = Callable[[str], None]


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
        self.options = options  # of the modes; one half of a measurement must not be of another kind than the other
        self._prepared: dict[str, Workload] = {}
        self._unprepared: dict[str, str] = {}  # kind -> why it could not be prepared

    def follow(self, progress: Progress) -> None:
        """Take every sample that is still missing.

        Raises VmctlError where an instance cannot be removed, ConflictError where somebody else measures there now,
        OSError where a sample cannot be kept.
        """
        with folders.held(self.folder):
            for name in leftovers.end(self.head.id):  # of a `vmctl bench` that was killed, its worker not
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
        """Measure one step in a process of its own; a failure is a sample with its reason. Nothing of it is left."""
        started, name = time.time(), f"bench-{step.mode or step.kind}-{os.urandom(3).hex()}"
        told = {"kind": step.kind, "mode": step.mode, "round": step.round, "started": started}
        work = self._work(step.kind)
        if work is None:
            return Sample(**told, error=self._unprepared[step.kind])  # type: ignore[arg-type]
        plan = self.head.plan
        cold, options = plan.cold and step.kind != CONTROL, _suited(step.mode, self.options)
        request = Request(work, name, step.mode, step.round < 1, plan.instances, cold, options)
        values = {**request._asdict(), "kind": step.kind, "workload": work.to_json()}
        del values["work"]
        probe = import_module(f"bench.probes.{step.kind}")
        limit_s = plan.time_limit_s or probe.limit_s(work, plan.instances)
        argv, whole = [sys.executable, "-m", "bench.worker"], False
        try:
            env = leftovers.marked(self.head.id, name)
            _, seen, _ = run(argv, stdin=msgspec.json.encode(values), env=env, timeout_s=limit_s)
            whole = True
            return msgspec.convert({**told, **msgspec.json.decode(seen)}, Sample)
        except CommandError as error:
            return Sample(**told, error=_why(error, limit_s))  # type: ignore[arg-type]
        except msgspec.MsgspecError as error:
            return Sample(**told, error=f"the process that measures wrote no sample: {error}")  # type: ignore[arg-type]
        finally:
            if not whole:  # before the instances, which it might be making
                leftovers.end(self.head.id, name)
            leftovers.remove(name)

    def _work(self, kind: str) -> Workload | None:
        """Return what is measured for a kind of sample, made ready once; None where that failed."""
        if kind not in self._prepared and kind not in self._unprepared:
            try:
                self._prepared[kind] = import_module(f"bench.probes.{kind}").prepare(self.work)
            except VmctlError as error:
                self._unprepared[kind] = " ".join(filter(None, [str(error), error.detail]))
        return self._prepared.get(kind)

    def _left(self, steps: list[Step]) -> str:
        """Return how long these steps may take, by what such steps have taken so far."""
        times = self._durations()
        if any((step.kind, step.mode) not in times for step in steps):
            return f"{len(steps)} samples left"
        left_s = sum(median(times[step.kind, step.mode]) for step in steps)
        return f"about {format_seconds(left_s)} left" if left_s >= 1 else "less than 1 s left"

    def _durations(self) -> dict[tuple[str, str], list[float]]:
        """Return the seconds from each sample's beginning to the next one's."""
        found: dict[tuple[str, str], list[float]] = {}
        ends = [one.started for one in self.samples[1:]] + [time.time()]
        for one, end in zip(self.samples, ends, strict=False):
            found.setdefault((one.kind, one.mode), []).append(end - one.started)
        return found


def _suited(mode: str, options: Mapping[str, str]) -> dict[str, str]:
    return backends.suited(mode, options) if mode else {}  # the control has no mode


def begin(
    folder: str, work: Workload, plan: Plan, refusals: tuple[Refusal, ...], options: Mapping[str, str] | None = None
) -> Session:
    """Make the folder of a new measurement. Raises SpecError where it holds one already, or cannot be written to."""
    folders.make(folder)
    with folders.held(folder):
        path = os.path.join(folder, PLAN)
        if os.path.exists(path):
            raise SpecError(
                f"{folder} holds a measurement already",
                hint=f"`vmctl bench --resume {folder}` goes on with it; --out DIR names another folder",
            )
        options = options or {}
        head = _head(work, plan, refusals, options)
        try:
            kept = records.versioned({"workload": records.plain(work), "head": head, "options": options})
            write_atomic(path, msgspec.json.format(msgspec.json.encode(kept)))
        except OSError as error:
            raise VmctlError(
                f"{path} cannot be written: {error.strerror}", hint="`--out DIR` names another folder"
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
    """Return the measurement that was interrupted in a folder. Raises SpecError where there is none.

    The last line may be cut: the machine went down while it was written. Raises ConflictError if another process is
    writing it now.
    """
    try:
        with folders.held(folder), open(os.path.join(folder, PLAN), "rb") as file:
            kept = records.checked_format(msgspec.json.decode(file.read()), "it")
            records.refuse_unknown(kept, _KEYS, "it")
            head, options = msgspec.convert(kept["head"], Head), _options(kept)
            return Session(folder, _workload(kept), head, _samples(os.path.join(folder, SAMPLES)), options)
    except (FileNotFoundError, NotADirectoryError):
        raise SpecError(
            f"{folder} holds no measurement to resume", hint="`--resume` takes the folder that has plan.json in it"
        ) from None
    except records.UnreadableError as error:
        raise SpecError(f"{folder}/{PLAN} cannot be read: {error}", hint=error.hint) from None
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"{folder}/{PLAN} is damaged: {error}", hint="begin again in another folder") from None


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
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    try:
        return [msgspec.json.decode(line, type=Sample) for line in whole.splitlines()]
    except msgspec.MsgspecError as error:
        raise SpecError(f"{path} is damaged: {error}", hint="begin again in another folder") from None


def _explained(work: Workload, mode: str, options: Mapping[str, str]) -> list[list[str]]:
    """Return every host step of a start in this mode, as `up --explain` has them."""
    return [[step.what, step.raw] for step in backends.load(mode, _suited(mode, options)).explain(work)]


def _describe(step: Step) -> str:
    return f"{'warming up' if step.round < 1 else f'round {step.round}'}: {step.kind} {step.mode}".rstrip()


def _why(error: CommandError, limit_s: float) -> str:
    """Return why the process that measures gave no sample."""
    if error.output.startswith("did not end within"):
        return f"the sample did not end within {limit_s:g} s, its time limit"
    if error.returncode < 0:
        return f"the process that measures was killed by signal {-error.returncode}"
    last = (error.output.strip().splitlines() or ["no message"])[-1]
    return f"the process that measures failed with code {error.returncode}: {last}"
