"""One sample: a fresh instance, made and removed by a fresh process, and what was seen of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from vmctl import engine
from vmctl.errors import NotFoundError, VmctlError
from vmctl.run import CommandError, run
from vmctl.workload import Workload

WARM_UP = 0  # the round that is not counted
SPARE_S = 180.0  # beside the time the workload may take to get ready: preparation, removal, a slow host


class Answer(NamedTuple):
    """What one instance answered; None where it was not, or could not be, asked."""

    page: str | None
    page_digest: str | None
    kernel: str | None
    exit_code: int | None  # of `sh -c "uname -r; exit 7"`


class Sample(NamedTuple):
    """What was observed of one instance. With an `error` everything that was not observed is None or absent."""

    mode: str
    round: int
    error: str | None = None
    marks_ns: Mapping[str, int] = {}
    pss_bytes: int | None = None
    cgroup_bytes: int | None = None
    disk_bytes: int | None = None
    shared_disk_bytes: int | None = None
    accelerator: str | None = None
    image_digest: str | None = None
    exit_code: int | None = None
    answer: Answer | None = None

    def between_s(self, first: str, last: str) -> float | None:
        """Return the seconds between two marks, None where one was not observed."""
        if self.error or first not in self.marks_ns or last not in self.marks_ns:
            return None
        return (self.marks_ns[last] - self.marks_ns[first]) / 1e9


def take(work: Workload, mode: str, number: int, *, look: bool = False) -> Sample:
    """Measure one instance in a process of its own and return the sample; a failure is a sample with its reason.

    With `look` the instance is also asked what it answers. Nothing of it is left, not even after Ctrl-C.
    """
    fresh = work._replace(name=f"bench-{mode}-{os.urandom(3).hex()}")
    request = json.dumps({"workload": fresh.to_json(), "mode": mode, "look": look})
    timeout_s = SPARE_S + (work.ready.timeout_s if work.ready else 0)
    try:
        _, answer, _ = run([sys.executable, "-m", "bench.worker"], stdin=request.encode(), timeout_s=timeout_s)
        return from_json({**json.loads(answer), "mode": mode, "round": number})
    except CommandError as error:
        return Sample(mode, number, str(error))
    finally:
        _remove(fresh.name)


def from_json(values: dict[str, object]) -> Sample:
    """Return the sample that a worker, or a result file, has written."""
    answer = values.pop("answer", None)
    sample = Sample(**values)  # type: ignore[arg-type]
    return sample._replace(answer=Answer(*answer.values())) if isinstance(answer, dict) else sample


def to_json(sample: Sample) -> dict[str, object]:
    """Return a sample as a mapping for a result file."""
    return {**sample._asdict(), "answer": sample.answer._asdict() if sample.answer else None}


def _remove(name: str) -> None:
    """Remove what a worker that was killed has left."""
    try:
        engine.rm(name, force=True)
    except NotFoundError:
        pass
    except VmctlError as error:
        raise VmctlError(f"the instance {name} is left behind: {error}", hint=f"vmctl rm -f {name}") from error
