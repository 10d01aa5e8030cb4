"""What stands in the way of a start, all of it before anything is made."""

from __future__ import annotations

import os

from vmctl.backend import Backend, Problem
from vmctl.errors import UnavailableError
from vmctl.spec import rules
from vmctl.spec.workload import Workload

LEAST_FILES = 64  # descriptors of a start: twice what a container needs (setrlimit(2), RLIMIT_NOFILE)


def problems(work: Workload, backend: Backend) -> list[Problem]:
    """Return all problems of running `work` in this mode; changes nothing."""
    of_mode = (*backend.features.problems(work), *backend.check(work))
    others = (*_network_problems(work, backend), *_port_problems(work, backend), *_source_problems(work))
    return [*_limit_problems(), *of_mode, *others]


def check(work: Workload, backend: Backend) -> None:
    """Raise UnavailableError with all problems of running `work` in this mode."""
    refuse(f"{work.name} cannot run in mode {backend.mode}", problems(work, backend))


def refuse(what: str, found: list[Problem]) -> None:
    """Raise UnavailableError with all problems, if there are any; `what` is not possible because of them."""
    if found:
        first, *others = found
        more = "\n".join(f"also: {problem.text}" for problem in others)
        kind = first.kind if issubclass(first.kind, UnavailableError) else UnavailableError
        raise kind(f"{what}: {first.text}", hint=first.hint, detail=more)


def _limit_problems() -> list[Problem]:
    """Refuse a limit of open files with which a start would fail halfway, and its removal too."""
    limit = os.sysconf("SC_OPEN_MAX")
    if 0 < limit < LEAST_FILES:
        return [
            Problem(f"only {limit} files may be open at a time, {LEAST_FILES} are needed", f"ulimit -n {LEAST_FILES}")
        ]
    return []


def _source_problems(work: Workload) -> list[Problem]:
    """Return why secrets and files of variables cannot be read, if so."""
    if not (work.secrets or work.env_file):
        return []
    from vmctl.keeping import held

    return held.problems(work)


def _network_problems(work: Workload, backend: Backend) -> list[Problem]:
    if work.network in ("bridge", "none", "host") or not backend.features.own_network:
        return []
    if rules.neighbour(work):
        from vmctl import neighbours

        return neighbours.problems(work, backend)
    from vmctl.net import refusals

    return [Problem(str(error), error.hint) for error in refusals(work)]


def _port_problems(work: Workload, backend: Backend) -> list[Problem]:
    if not work.ports:
        return []
    from vmctl.net import ports

    return [Problem(str(error), error.hint) for error in ports.refusals(work.ports)]
