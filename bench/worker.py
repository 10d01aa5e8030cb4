"""The worker process that takes one sample: it makes instances, observes and removes them, and writes JSON.

Every sample has a new process, like every `vmctl up`: no sample inherits memory, caches or threads of another.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

from bench.probes import Request
from vmctl import backends
from vmctl.backend import HasReads
from vmctl.errors import VmctlError
from vmctl.spec.workload import Workload


def main() -> None:
    """Read a request from stdin, write the sample to stdout."""
    fields = json.load(sys.stdin)
    kind, work = fields.pop("kind"), Workload.from_json(fields.pop("workload"))
    request = Request(work=work._replace(name=fields["name"]), **fields)
    try:
        seen = _observed(kind, request)
    except VmctlError as error:
        seen = {"error": " ".join(filter(None, [str(error), error.detail]))}
    except OSError as error:  # a file of /proc that this kernel lacks, a full disk
        seen = {"error": f"{error.strerror or error} {error.filename or ''}".strip()}
    os.write(1, json.dumps(seen).encode())


def _observed(kind: str, request: Request) -> dict[str, Any]:
    probe = import_module(f"bench.probes.{kind}")
    evicted = _evicted(request) if request.cold else {}
    seen = probe.observe(request)._asdict()
    return {**seen, "values": {**seen["values"], **evicted}}


def _evicted(request: Request) -> dict[str, float]:
    """Evict the files that a start reads from the page cache; return how many bytes were cached before and after."""
    from bench import cold

    found = cold.evict(backends.ability(request.backend(), HasReads).reads(request.work))
    return {} if found is None else {"cached_before_bytes": found.bytes_before, "cached_after_bytes": found.bytes_after}


if __name__ == "__main__":
    main()
