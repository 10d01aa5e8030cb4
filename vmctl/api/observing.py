"""Requests that wait for an instance, or read its logs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from vmctl import backends, engine, readiness, waiting
from vmctl.errors import DeadlineError, EndedEarly, NotFoundError, NotReady, SpecError, StateError
from vmctl.instances.instance import Instance
from vmctl.logs import timed
from vmctl.logs.timed import TimedLog
from vmctl.spec.scalars import PARSERS
from vmctl.spec.workload import Ready, Seconds
from vmctl.survey import RUNNING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmctl.api.worker import Caller

_POLL_S = 0.05
_DEFAULT_S = 60.0  # as `ready.timeout` of the workload file
_HINT = "give it more time: wait(..., timeout=SECONDS)"


def wait(inst: Instance, given: Mapping[str, Any], caller: Caller) -> float:
    """Wait until everything that is asked for is so; return the seconds. Raises NotReady, EndedEarly, SpecError."""
    begun_s = time.monotonic()
    timeout_s = _DEFAULT_S if given["timeout_s"] is None else given["timeout_s"]
    try:
        for number, probe in enumerate(_probes(given)):
            left_s = max(0.0, begun_s + timeout_s - time.monotonic()) if number else timeout_s  # as the error names it
            _until(inst, probe._replace(timeout_s=Seconds(left_s)))
        limit = waiting.Limit(max(0.0, begun_s + timeout_s - time.monotonic()))
        if given["healthy"]:
            waiting.healthy(inst, limit)
        elif not _probes(given):
            waiting.ready(inst, limit)
    except NotReady as error:
        error.hint = "" if isinstance(error, EndedEarly) else _HINT
        raise
    except DeadlineError as error:
        raise NotReady(str(error), hint=_HINT, detail=readiness.tail(inst)) from None
    except StateError as error:
        if engine.status(inst) == "running":
            raise
        raise EndedEarly(str(error), hint=error.hint, detail=readiness.tail(inst)) from None
    return time.monotonic() - begun_s


def _probes(given: Mapping[str, Any]) -> list[Ready]:
    found = []
    if given["port"] is not None:
        if not 0 < given["port"] < 65536:
            raise SpecError(f"port: expected a number from 1 to 65535, not {given['port']}")
        found.append(Ready(tcp=given["port"]))
    if given["http"] is not None:
        try:
            found.append(Ready(http=PARSERS["HttpProbe"](given["http"])))
        except ValueError as error:
            raise SpecError(f"http: expected {error}") from None
    if given["log"] is not None:
        import re

        try:
            re.compile(given["log"].encode(), re.MULTILINE)
        except re.error as error:
            raise SpecError(f"log: {given['log']!r} is not a regular expression: {error}") from None
        found.append(Ready(log=given["log"]))
    return found


def _until(inst: Instance, ready: Ready) -> None:
    """Wait until a probe succeeds. Raises NotReady with the last lines of the output."""
    backend = backends.load(inst.state.mode, inst.state.options)
    if (found := engine.status(inst, backend)) != "running":
        raise EndedEarly(f"{inst.name} is {found} and not ready", detail=readiness.tail(inst))
    inst.work = inst.work._replace(ready=ready)
    readiness.wait_until_ready(backend.watch(inst))


def logs(inst: Instance, given: Mapping[str, Any], caller: Caller) -> None:
    """Send the lines of its output as events `[stream, text, nanoseconds]`, and with `follow` those that come."""
    if given["stream"] == "console":
        if not os.path.exists(inst.console_log):
            raise NotFoundError(f"{inst.name} has no console: mode {inst.state.mode} boots no kernel")
        sources = {TimedLog(inst.console_log): "console"}
    else:
        both = {"stdout": inst.stdout_log, "stderr": inst.stderr_log}
        sources = {TimedLog(path): name for name, path in both.items() if given["stream"] in (name, "both")}
    ordered = list(sources)
    skipped = 0 if given["tail"] is None else timed.skip_to_tail(ordered, given["tail"])
    while True:
        more = given["follow"] and engine.status(inst) in (*RUNNING, "created")
        for log, piece in timed.available(ordered, final=not more):
            for line in piece.data.splitlines(keepends=True):
                if skipped and line.endswith(b"\n"):
                    skipped -= 1
                    continue
                caller.send("line", [sources[log], line.decode(errors="replace"), piece.time_ns])
        if not more:
            return
        time.sleep(_POLL_S)
