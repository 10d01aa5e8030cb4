"""`vmctl up --explain`: the steps of a start, by the phases they belong to, or as a script."""

from __future__ import annotations

import os
from itertools import groupby

from vmctl import backends, byhand, console, phases
from vmctl.backend import Backend, HasByHand
from vmctl.errors import SpecError
from vmctl.linux.filetree import write_atomic
from vmctl.spec.workload import Workload
from vmctl.steps import Step

_FOLDED = 3  # so many steps of the same name and more are one line, unless --verbose


def show(work: Workload, backend: Backend, *, verbose: bool = False) -> None:
    """Print every step of a start, below the title of its phase."""
    number, seen = 1, set()
    for phase, steps in groupby(backend.explain(work), lambda step: step.phase):
        if phase in phases.PHASES:
            found = phases.PHASES[phase]
            print(f"{found.title.upper()}{'' if phase in seen else f': {found.why}'}")
            seen.add(phase)
        for what, group in groupby(steps, lambda step: step.what):
            same = list(group)
            folded = len(same) > _FOLDED and not verbose
            if folded:
                print(f"{number:3}. {console.visible(what)}: {len(same)} of them (--verbose shows each)")
            else:
                for offset, step in enumerate(same):
                    _one(number + offset, step)
            number += len(same)


def _one(number: int, step: Step) -> None:
    place = {byhand.GUEST: " (in the guest)", byhand.INSIDE: " (inside)"}.get(step.place, "")
    why, *more = step.why.splitlines() or [""]
    print(console.visible(f"{number:3}. {step.what}{place}{f': {why}' if why else ''}"))
    for line in more:
        print(console.visible(f"     {line}"))
    for line in step.raw.splitlines():
        print(f"       {console.visible(line)}")


def write(work: Workload, backend: Backend, path: str) -> None:
    """Write the script of a start. Raises SpecError for a workload that a script cannot start, UnavailableError."""
    able = backends.ability(backend, HasByHand)
    for problem in able.by_hand(work):
        raise SpecError(f"--script: {problem.text}", hint=problem.hint)
    write_atomic(path, byhand.script(work.name, backend.mode, backend.explain(work)))
    os.chmod(path, 0o700)
