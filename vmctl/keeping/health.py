"""The health of an instance: which check it has, and what the last one has found."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from vmctl.instances.instance import Instance
from vmctl.keeping.keeper import RECORD_BYTES
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec.keeping import LEAST_S, MOST_RETRIES, MOST_S
from vmctl.spec.workload import Health

if TYPE_CHECKING:
    from typing import Any

STATES = ("starting", "healthy", "unhealthy")
_NANO = 1e-9  # Go's unit of durations, in the configuration of an image
# key of our record -> its key in an image, its default
_TIMES = {
    "interval_s": ("Interval", 30.0),
    "timeout_s": ("Timeout", 30.0),
    "retries": ("Retries", 3),
    "start_period_s": ("StartPeriod", 0.0),
    "start_interval_s": ("StartInterval", 1.0),
}


class Seen(NamedTuple):
    """What the last check has found."""

    status: str  # one of STATES
    failures: int  # in a row
    code: int  # of the last check: 0 if it succeeded
    checked: float | None  # when it ended, in seconds since the epoch; None before the first one
    output: str  # the first 4 KiB; it is the workload's, and can contain anything


def resolved(asked: Health | None, image: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the check of an instance for `State.health`, {} for none, and a warning or "".

    `image` is `Healthcheck` of the configuration of its image (Docker image specification 1.2). Its values are checked:
    the image is hostile.
    """
    if asked is not None and asked.disable:
        return {}, ""
    asked, warning = asked or Health(), ""
    found: dict[str, Any] = {}
    if asked.probes():
        image = {}
        probe = getattr(asked, asked.probes()[0])
        found[asked.probes()[0]] = list(probe) if isinstance(probe, tuple) else probe
    else:
        found["exec"], warning = _command(image.get("Test"))
        if not found["exec"]:
            return {}, warning
    for key, (name, default) in _TIMES.items():
        given = getattr(asked, key)
        found[key] = _time(key, image.get(name), default) if given is None else float(given)
    found["start_interval_s"] = min(found["start_interval_s"], found["interval_s"])
    return found, warning


def _command(test: Any) -> tuple[list[str], str]:
    if not test or test == ["NONE"]:
        return [], ""
    if isinstance(test, list) and len(test) > 1 and all(isinstance(word, str) and "\0" not in word for word in test):
        if test[0] == "CMD" and test[1]:
            return test[1:], ""
        if test[0] == "CMD-SHELL" and len(test) == 2:
            return ["/bin/sh", "-c", test[1]], ""
    return [], "HEALTHCHECK of the image has another form than NONE, CMD or CMD-SHELL; it is not run"


def _time(key: str, given: Any, default: float) -> float:
    """Return a time or number of an image within limits; the default in place of 0 and of other values."""
    if type(given) is not int or given <= 0:
        return float(default)
    if key == "retries":
        return float(min(given, MOST_RETRIES))
    return min(max(given * _NANO, LEAST_S), MOST_S)


def record(inst: Instance, image: Mapping[str, Any], *, attached: bool) -> None:
    """Record the check of an instance in its state, and make room for its results; none for an attached workload.

    `image` is as in `resolved`. Raises OSError.
    """
    inst.state.health, warning = ({}, "") if attached else resolved(inst.work.health, image)
    if warning:
        inst.state.warnings.append(warning)
    if inst.state.health:
        _make_room(inst)


def times(check: Mapping[str, Any]) -> list[float]:
    """Return the times of a check in the order of `keeper.Settings`, [] for none."""
    return [float(check[key]) for key in _TIMES] if check else []


def path(inst: Instance) -> str:
    """Return the path of the record of the checks."""
    return posixpath.join(inst.directory, "health")


def _make_room(inst: Instance) -> None:
    """Make the record, with its whole size: a full disk must not prevent that a check is recorded."""
    fd = os.open(path(inst), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, b"starting 0 0 0\n".ljust(RECORD_BYTES, b"\0"), 0)
    finally:
        os.close(fd)


def seen(inst: Instance) -> Seen | None:
    """Return what the last check of a running instance has found; None if it has no check, or the record is damaged."""
    if not inst.state.health:
        return None
    try:
        with open(path(inst), "rb") as file:
            head, _, output = file.read(RECORD_BYTES).rstrip(b"\0").partition(b"\n")
        status, failures, code, at_s = head.decode("ascii").split()
        found = Seen(status, int(failures), int(code), float(at_s) or None, output.decode(errors="replace"))
    except (OSError, ValueError):
        return None
    return found if status in STATES else None
