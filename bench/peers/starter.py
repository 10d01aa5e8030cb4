"""The process that starts one workload through our library; its caller times the workload's first byte.

    python -m bench.peers.starter MODE attached|detached WORKLOAD

Attached, the workload writes to this process's standard output, and the caller sees the byte arrive. Detached, this
process waits for the byte and notes the moment. The marks go to standard error, as JSON.
"""

from __future__ import annotations

import json
import os
import sys

from vmctl import backends, engine, readiness
from vmctl.backend import Attachment, Watch
from vmctl.errors import VmctlError
from vmctl.spec.workload import Workload

LIMIT_S = 60.0


def main() -> None:
    """Start the workload, wait for its end or its output, remove it, write the marks."""
    mode, how, text = sys.argv[1:]
    work = Workload.from_json(text)
    attachment = Attachment() if how == "attached" else None
    with engine.running(work, backends.load(mode), attachment) as start:
        start.attend() if attachment else _watch(start.watch)
    os.write(2, json.dumps(start.inst.timeline.marks_ns).encode())


def _watch(watch: Watch) -> None:
    readiness.wait_for_output(watch, LIMIT_S)
    if "T5" not in watch.inst.timeline.marks_ns:
        raise VmctlError(f"{watch.inst.name} wrote nothing")


if __name__ == "__main__":
    main()
