"""Start the same workload in several modes at the same time, and collect the facts of each."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial

from vmctl import backends, engine
from vmctl.backend import Start
from vmctl.comparing import inside, outside
from vmctl.errors import CommandNotExecutableError, CommandNotFoundError, SpecError, StateError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec import flags
from vmctl.spec.workload import Restart, Workload
from vmctl.stacks import workers

if TYPE_CHECKING:
    from typing import Any

# what an image runs while it is looked at, if no file names a workload: a shell that waits, and ends when it is asked
WAITS = ("sh", "-c", 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done')
_FACTS = "facts"
_OUTPUT_SHOWN = 200

MODES = ("host", "container", "vm")  # if none are given

Progress = Callable[[str], None]


class Asked(NamedTuple):
    """What is compared: a workload, the modes, the options of each mode, and a command to run in each."""

    work: Workload
    modes: tuple[str, ...]
    options: Mapping[str, str] = {}
    command: tuple[str, ...] = ()


def compare(asked: Asked, progress: Progress = lambda text: None) -> list[dict[str, str]]:
    """Return the facts of each mode, in the order of the modes. All instances are removed.

    Raises UnavailableError before anything is started if a mode cannot run the workload, and the first error of a mode.
    """
    token = os.urandom(4).hex()
    works = {mode: _work(asked.work, mode, token) for mode in asked.modes}
    for mode, work in works.items():
        engine.check(work, backends.load(mode, backends.suited(mode, asked.options)))
    found: dict[str, dict[str, str]] = {}

    def report(mode: str, event: str, values: Mapping[str, Any]) -> None:
        if event == _FACTS:
            found[mode] = dict(values["found"])
        progress(f"{mode}: {values.get('phase', 'done')}")

    jobs = [workers.Job(mode, partial(_look, work, mode, asked)) for mode, work in works.items()]
    failures = workers.run(jobs, report)
    if failures:
        raise failures[0].error
    return [found[mode] for mode in asked.modes]


def chosen(modes: tuple[str, ...], asked: str) -> tuple[str, ...]:
    """Return the modes to compare; `asked` is what has named them. Raises SpecError for unknown ones and for twins."""
    for name in modes:
        backends.options(name)  # raises for a mode that does not exist
    if not modes or len(set(modes)) != len(modes):
        what = "names a mode twice" if modes else "names no mode"
        raise SpecError(f"{asked} {what}", hint=f"the default is {','.join(MODES)}")
    return modes


def workload(what: str) -> Workload:
    """Return the workload of a file, or one that waits in an image. Raises SpecError, NotFoundError."""
    if os.path.exists(what) or what.endswith((".yaml", ".yml")):
        from vmctl.spec import workloadfile

        return workloadfile.load(what)
    return flags.workload({"name": "compare", "image": what, "command": WAITS}, {"image": "IMAGE"})


def _work(work: Workload, mode: str, token: str) -> Workload:
    """Return the workload of a mode: with a mark by which its processes are found, without ports of the host."""
    env = {**work.env, outside.MARK: f"{token}-{mode}"}
    return work._replace(name=f"{work.name[:30]}-{token}-{mode}", env=env, ports=(), restart=Restart())


def _look(work: Workload, mode: str, asked: Asked, send: workers.Send) -> None:
    backend = backends.load(mode, options := backends.suited(mode, asked.options))
    send("phase", phase="starting")
    with engine.running(work, backend, options=options) as start:
        inst = start.inst
        send("phase", phase="looking at it")
        try:
            found = {**outside.facts(inst), **_inside(inst), **_command(inst, asked.command)}
        except (OSError, VmctlError) as error:
            if not _ended(start):
                raise
            raise _too_early(work) from error
        if _ended(start):  # some of the facts may be about nothing
            raise _too_early(work)
        send(_FACTS, found=found)


def _ended(start: Start) -> bool:
    state = start.inst.state
    return start.watch.result() is not None or not processes.alive(state.pid, state.pid_start)


def _too_early(work: Workload) -> StateError:
    return StateError(
        f"the workload of {work.name} ended before it could be looked at",
        hint="compare a workload that goes on, or an image: then a shell waits in it",
    )


def _inside(inst: Instance) -> dict[str, str]:
    before_s = time.time()
    found = inside.facts(inst)
    now_s = time.time()
    if clock := found.pop("clock_s", ""):
        ahead_s = float(clock) - now_s if clock.isdigit() else 0.0
        right = before_s - 2 <= ahead_s + now_s <= now_s + 2
        found["clock"] = "the same" if right else f"{ahead_s:+.0f} s"
    boot = found.get("boot_id", "")[:8]
    return {name: f"{text} of boot {boot}" if name.startswith("ns_") else text for name, text in found.items()}


def _command(inst: Instance, command: tuple[str, ...]) -> dict[str, str]:
    if not command:
        return {}
    try:
        answer = inside.ask(inst, command)
    except (CommandNotFoundError, CommandNotExecutableError) as error:
        return {"output": str(error), "exit_code": str(error.exit_code)}
    text = answer.text.strip()
    if len(text) > _OUTPUT_SHOWN:
        digest = hashlib.sha256(answer.text.encode()).hexdigest()[:12]
        text = f"{text[:_OUTPUT_SHOWN]}... (sha256 {digest})"
    return {"output": text, "exit_code": str(answer.code)}
