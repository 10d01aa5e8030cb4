"""What a service may use and do: limits, capabilities, kernel settings, ending, logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vmctl.spec.units import parse_size
from vmctl.stacks import forms, keys
from vmctl.stacks.draft import Draft
from vmctl.stacks.item import Place
from vmctl.stacks.keys import Warn
from vmctl.stacks.stack import Needed

_LEAST_LOG_BYTES = 128 << 10  # less is kept nowhere; see vmctl/spec/rules.py
_LOCAL_DRIVERS = ("json-file", "local")


def translate(place: Place, found: Mapping[str, Place], draft: Draft, warn: Warn) -> Iterator[Needed]:
    """Set the keys of a draft; yield what needs a mode with the host's kernel. Raises SpecError."""
    for name, path, convert in (
        ("mem_limit", "resources.memory", Place.text),
        ("cpus", "resources.cpus", _number),
        ("shm_size", "shm_size", Place.text),
        ("stop_signal", "stop_signal", Place.text),
        ("stop_grace_period", "stop_timeout", forms.duration),
    ):
        if name in found:
            draft.set(path, convert(found[name]), found[name])
    _pids(found.get("pids_limit"), draft)
    _quota(found, draft)
    _deploy(found.get("deploy"), draft, warn)
    _ulimits(found.get("ulimits"), draft)
    _sysctls(found.get("sysctls"), draft)
    _hosts(found.get("extra_hosts"), draft)
    _logging(found.get("logging"), draft, warn)
    yield from _capabilities(found, draft)
    yield from _devices(found.get("devices"), draft)
    yield from _security(found.get("security_opt"), draft, warn)


def _number(place: Place) -> float:
    try:
        return float(place.text())
    except ValueError:
        raise place.error(f"expected a number such as 0.5, got {place.kind()}") from None


def _pids(place: Place | None, draft: Draft) -> None:
    if place is not None and place.text() not in ("-1", "0"):  # as in docker: no limit; ours has a default
        draft.set("resources.pids", place.whole(1), place)


def _quota(found: Mapping[str, Place], draft: Draft) -> None:
    """Set processors from the quota of a period, both in microseconds."""
    if (quota := found.get("cpu_quota")) is not None:
        period = found["cpu_period"].whole(1000, 1_000_000) if "cpu_period" in found else 100_000
        draft.set("resources.cpus", quota.whole(1000) / period, quota)


def _deploy(place: Place | None, draft: Draft, warn: Warn) -> None:
    if place is None:
        return
    found = keys.check(place, keys.DEPLOY, warn)
    if "mode" in found and found["mode"].text() != "replicated":
        raise found["mode"].error(f"{found['mode'].kind()} is for a swarm of hosts", "leave it out")
    if "resources" in found:
        resources = keys.check(found["resources"], keys.RESOURCES, warn)
        if "limits" in resources:
            _limits(resources["limits"], draft, warn)
        if "reservations" in resources:
            keys.check(resources["reservations"], keys.RESERVATIONS, warn)
    if "restart_policy" in found:
        _restart_policy(found["restart_policy"], draft, warn)


def _limits(place: Place, draft: Draft, warn: Warn) -> None:
    found = keys.check(place, keys.LIMITS, warn)
    if "cpus" in found:
        draft.set("resources.cpus", _number(found["cpus"]), found["cpus"])
    if "memory" in found:
        draft.set("resources.memory", found["memory"].text(), found["memory"])
    _pids(found.get("pids"), draft)


def _restart_policy(place: Place, draft: Draft, warn: Warn) -> None:
    found = keys.check(place, keys.RESTART_POLICY, warn)
    policies = {"none": "no", "on-failure": "on-failure", "any": "always"}
    condition = found["condition"].text() if "condition" in found else "any"
    if condition not in policies:
        raise found["condition"].error(f"expected none, on-failure or any, got {condition[:40]!r}")
    times = f":{found['max_attempts'].whole(1)}" if "max_attempts" in found and condition == "on-failure" else ""
    if "restart" not in draft.document:  # `restart` of the service is nearer
        draft.set("restart", policies[condition] + times, place)


def _ulimits(place: Place | None, draft: Draft) -> None:
    """Set limits from a mapping, `nproc: 200` or `nofile: {soft: 1, hard: 2}`, or from the texts of a workload file."""
    if place is None:
        return
    if not place.is_map():
        for one in place.each():
            draft.add("ulimits", one.text(), one)
        return
    for name, one in place.entries().items():
        if one.is_text():
            text = one.text()
        else:
            found = keys.check(one, keys.Keys(known=("soft", "hard")), lambda _: None)
            text = ":".join(found[part].text() for part in ("soft", "hard") if part in found)
        draft.add("ulimits", f"{name}={text}", one)


def _sysctls(place: Place | None, draft: Draft) -> None:
    if place is not None:
        draft.set("sysctls", {name: part.text() for name, part in place.pairs().items()}, place)


def _hosts(place: Place | None, draft: Draft) -> None:
    """Set entries of /etc/hosts: a mapping, or a list of NAME:ADDRESS or NAME=ADDRESS."""
    if place is None:
        return
    if place.is_map():
        entries = [(name, part.text()) for name, part in place.entries().items()]
    else:
        entries = []
        for one in place.each():
            name, sign, address = one.text().partition("=" if "=" in one.text() else ":")
            if not sign:
                raise one.error(f"expected NAME:ADDRESS, got {one.kind()}")
            entries.append((name, address.strip("[]")))
    draft.set("extra_hosts", [f"{name}:{address}" for name, address in entries], place)


def _logging(place: Place | None, draft: Draft, warn: Warn) -> None:
    if place is None:
        return
    found = keys.check(place, keys.LOGGING, warn)
    driver = found["driver"].text() if "driver" in found else _LOCAL_DRIVERS[0]
    if driver not in _LOCAL_DRIVERS:
        raise found["driver"].error(f"logs are files of vmctl, they cannot be sent to {driver[:40]}", "json-file")
    options = keys.check(found["options"], keys.LOG_OPTIONS, warn) if "options" in found else {}
    if "max-size" not in options or options["max-size"].text() == "-1":
        return
    try:
        size = parse_size(options["max-size"].text())
    except ValueError as error:
        raise options["max-size"].error(f"expected {error}") from None
    files = options["max-file"].whole(1, 1000) if "max-file" in options else 1
    draft.set("logs.size", max(_LEAST_LOG_BYTES, size * files), options["max-size"])


def _capabilities(found: Mapping[str, Place], draft: Draft) -> Iterator[Needed]:
    for name in ("cap_add", "cap_drop"):
        if name in found:
            texts = [text.upper().removeprefix("CAP_") for text in found[name].texts()]
            draft.set(f"container.{name}", texts, found[name])
    if "cap_drop" in found and found["cap_drop"].each():
        yield Needed(found["cap_drop"], "capabilities are not dropped in a guest: root there has all of its own kernel")


def _devices(place: Place | None, draft: Draft) -> Iterator[Needed]:
    """Add devices: `source[:target[:permissions]]`, or a mapping of these."""
    for one in place.each() if place is not None else []:
        if one.is_text():
            draft.add("devices", one.text(), one)
        else:
            found = keys.check(one, keys.DEVICE, lambda _: None)
            words = [found[name].text() for name in ("source", "target", "permissions") if name in found]
            draft.add("devices", ":".join(words), one)
        yield Needed(one, "a guest has its own devices, and gets none of the host")


def _security(place: Place | None, draft: Draft, warn: Warn) -> Iterator[Needed]:
    for one in place.each() if place is not None else []:
        name, _, value = one.text().replace("=", ":", 1).partition(":")
        if name == "no-new-privileges" and value in ("", "true"):
            yield Needed(one, "programs of a guest can gain privileges of its own kernel")
        elif (name, value) == ("seccomp", "unconfined"):
            draft.set("container.seccomp", "unconfined", one)
        elif name in ("label", "apparmor", "no-new-privileges"):
            warn(one.warning("it has no effect: the isolation of vmctl does not depend on it"))
        else:
            raise one.error(f"{one.kind()} is not available", "no-new-privileges, seccomp=unconfined")
