"""The place of an experiment: instances in each mode, started and removed through the public interface of vmctl."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack

from bench.labs.lab import Evidence
from vmctl import backends, engine
from vmctl.compare import inside, running
from vmctl.errors import VmctlError
from vmctl.linux import processes
from vmctl.spec.workload import Bytes, Resources, Workload

SCRIPT_S = 120.0
HERE = "this machine"


class Room:
    """See Place. Facts of one experiment are used again by the next one that asks for the same."""

    def __init__(self, options: Mapping[str, str], progress: running.Progress) -> None:
        self._options, self._progress = options, progress
        self._known: dict[object, Evidence] = {}

    def facts(self, modes: tuple[str, ...], image: str = "tiny", **limits: object) -> Evidence:
        """See Place."""
        key = (modes, image, tuple(limits.items()))
        if key not in self._known:
            asked = running.Asked(_waiting(image, limits), modes, self._options)
            found = running.compare(asked, self._progress)
            seen = {
                f"{mode}: {name}": text for mode, one in zip(modes, found, strict=True) for name, text in one.items()
            }
            self._known[key] = {**seen, **_here()}
        return self._known[key]

    def ask(self, mode: str, *scripts: str) -> list[str]:
        """See Place."""
        backend = backends.load(mode, options := backends.suited(mode, self._options))
        with ExitStack() as stack:
            started = []
            for number, _ in enumerate(scripts, 1):
                self._progress(f"{mode}: starting {number} of {len(scripts)}")
                work = _waiting("tiny", {})
                started.append(stack.enter_context(engine.running(work, backend, options=options)).inst)
            answers = [
                inside.ask(inst, ("sh", "-c", f"{{ {script}\n}} 2>&1"), SCRIPT_S)
                for inst, script in zip(started, scripts, strict=True)
            ]
        return [f"{answer.text.strip()}\nexit {answer.code}".strip() for answer in answers]


def problem(mode: str, options: Mapping[str, str]) -> str:
    """Return why this machine cannot run a mode, "" if it can."""
    try:
        engine.check(_waiting("tiny", {}), backends.load(mode, backends.suited(mode, options)))
    except VmctlError as error:
        return str(error)
    return ""


def _waiting(image: str, limits: Mapping[str, object]) -> Workload:
    resources = Resources()
    if "memory_bytes" in limits:
        resources = resources._replace(memory_bytes=Bytes(int(str(limits["memory_bytes"]))))
    if "cpus" in limits:
        resources = resources._replace(cpus=float(str(limits["cpus"])))
    return Workload(name=f"lab-{os.urandom(4).hex()}", image=image, command=running.WAITS, resources=resources)


def _here() -> Evidence:
    memory_kib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    return {
        f"{HERE}: kernel": os.uname().release,
        f"{HERE}: boot_id": processes.boot_id(),
        f"{HERE}: memory_kib": str(memory_kib),
        f"{HERE}: processors": str(os.cpu_count()),
    }
