"""The process that takes one sample: it starts an instance, looks at it, removes it, and writes what it saw as JSON.

A process of its own for every sample, as `vmctl up` is one: no sample inherits memory, caches or threads of another.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from vmctl import engine, readiness, registry
from vmctl.backend import Backend
from vmctl.errors import DeadlineError, VmctlError
from vmctl.instance import Instance
from vmctl.workload import Workload

BATCH_S = 60.0
SETTLE_S = 0.5  # before memory is read: helpers have started up, and given back what only that needed
CODE = 7
QUESTION = ("sh", "-c", f"uname -r; exit {CODE}")


def main() -> None:
    """Read a request from stdin, write the sample to stdout."""
    request = json.load(sys.stdin)
    work = Workload.from_json(request["workload"])
    try:
        seen = measure(work, request["mode"], look=request["look"])
    except VmctlError as error:
        seen = {"error": " ".join(filter(None, [str(error), error.detail]))}
    os.write(1, json.dumps(seen).encode())


def measure(work: Workload, mode: str, *, look: bool) -> dict[str, Any]:
    """Return what was seen of one instance from its start to its removal. Raises errors of vmctl.errors."""
    backend = registry.load(mode)
    inst = engine.create(work, backend)
    with inst.locked():
        try:
            engine.bring_up(inst, backend)
            seen = _service(inst, backend, look=look) if work.ready else _batch(inst, backend)
        finally:
            inst.timeline.mark("T7")
            engine.remove(inst, backend)
    marks_ns = inst.timeline.marks_ns
    return {**seen, "marks_ns": marks_ns, **{key: getattr(inst.state, key) for key in ("accelerator", "image_digest")}}


def _service(inst: Instance, backend: Backend, *, look: bool) -> dict[str, Any]:
    """Look at an instance that has just become ready."""
    time.sleep(SETTLE_S)
    seen: dict[str, Any] = backend.footprint(inst)._asdict()
    return {**seen, "answer": _answer(inst)} if look else seen


def _batch(inst: Instance, backend: Backend) -> dict[str, Any]:
    """Stay with an instance until it has ended by itself; it marks T5 on the way."""
    deadline = time.monotonic() + BATCH_S
    while backend.alive(inst):
        backend.observe(inst)
        if time.monotonic() > deadline:
            raise DeadlineError(f"{inst.name} did not end within {BATCH_S:g} s, and has no `ready` to wait for")
        time.sleep(readiness.PERIOD_S)
    backend.observe(inst)
    result = engine.wait(inst)
    return {"exit_code": result.code if result else None}


def _answer(inst: Instance) -> dict[str, Any]:
    """Ask the instance for its page, its kernel, and for an exit code."""
    from hashlib import sha256

    page = _page(inst)
    code, output = _ask(inst)
    return {
        "page": page and page.decode(errors="replace"),
        "page_digest": page and "sha256:" + sha256(page).hexdigest(),
        "kernel": output.strip() or None,
        "exit_code": code,
    }


def _page(inst: Instance) -> bytes | None:
    """Return the body of what the workload's probe asks for, fetched from where the probe is."""
    from http.client import HTTPConnection

    from vmctl.host import reach

    if inst.work.ready is None or inst.work.ready.http is None:
        return None
    probe, address = inst.work.ready.http, inst.state.address or "127.0.0.1"
    http = HTTPConnection(address, probe.port)
    http.sock = reach.connect(address, probe.port, timeout_s=10.0)
    http.request("GET", probe.path)
    return http.getresponse().read()


def _ask(inst: Instance) -> tuple[int, str]:
    from vmctl.run import run

    argv = [sys.executable, "-m", "vmctl", "exec", "--no-stdin", inst.name, "--", *QUESTION]
    return run(argv, check=False, timeout_s=60.0)[:2]


if __name__ == "__main__":
    main()
