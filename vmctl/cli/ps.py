"""vmctl ps."""

from __future__ import annotations

from vmctl import limits
from vmctl.cli import filters, output
from vmctl.instances import published
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds
from vmctl.survey import RUNNING, UNKNOWN, Seen, survey

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

EXAMPLE = "vmctl ps --all --format json"
COLUMNS = ("name", "mode", "status", "image", "pid", "address", "ports", "created", "ready_s")
LESS = ("ready_s", "pid", "address", "created", "image")  # the first ones to go on a narrow terminal


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("stacks", metavar="STACK|FILE", nargs="*", help="list only the instances of these stacks")
    parser.add_argument("-a", "--all", action="store_true", help="list all instances (default: running ones)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")
    filters.add(
        parser,
        "list only instances with this name (or a part of it), status, mode, image, label, exit code (exited) or "
        "published port (publish); can be repeated",
    )
    output.add_format(parser)


def run(args: Namespace) -> int:
    """List the instances."""
    asked = filters.parse(args.filter, FILTERS)
    everything = args.all or args.stacks or any(key in ("status", "exited") for key, _ in asked)
    found = [seen for seen in survey() if everything or seen.status in (*RUNNING, UNKNOWN)]
    found = [seen for seen in found if all(_passes(seen, key, value) for key, value in asked)]
    if args.stacks:
        found = _of_stacks(found, args.stacks)
    if args.quiet:
        for seen in found:
            print(seen.name)
        return 0
    rows = list(map(row, found))
    if args.format not in ("json", "jsonl"):
        rows = [{**one, "state": one["status"], "status": _status(one)} for one in rows]
    output.show(rows, COLUMNS, args.format, _cell, LESS)
    if args.format == "table":
        output.note_unknown(found)
    return 0


FILTERS = ("name", "status", "mode", "image", "ancestor", "label", "exited", "publish")


def _passes(seen: Seen, key: str, value: str) -> bool:
    if key == "name":
        return value in seen.name
    if key == "status":
        return value == seen.status
    inst = seen.instance
    if key == "label":
        return inst is not None and filters.has_label(inst.work.labels, value)
    if inst is None:
        return False
    if key == "exited":
        return seen.status not in ("running", "paused") and value == str(inst.state.exit_code)
    if key == "publish":
        return value.partition("/")[0] in {str(port.host_port) for port in published.of(inst)}
    return value == (inst.state.mode if key == "mode" else inst.work.image)


def _of_stacks(found: list[Seen], stacks: list[str]) -> list[Seen]:
    """Return the instances of stacks in the order of their dependencies; a name may also be that of an instance."""
    from vmctl.cli import selection

    by_name = {seen.name: seen for seen in found}
    return [by_name[name] for name in selection.names(stacks) if name in by_name]


def _status(row: dict[str, Any]) -> str:
    """Return the status for a table: also the exit code, health, restarts, and how many processes ran out of memory."""
    if row["exit_source"] == "oom" and row["status"] != "restarting":
        return "oom"
    details = []
    if row["exit_code"] is not None and row["status"] == "restarting":  # it is None while the next run is prepared
        details.append(str(row["exit_code"]))
    elif row["status"] == "exited":
        details.append("unknown" if row["exit_code"] is None else str(row["exit_code"]))
    details += filter(None, [row["health"]])
    details += [f"{text} {row[key]}" for key, text in (("restarts", "restarts"), ("oom_kills", "oom")) if row[key]]
    return f"{row['status']} ({', '.join(details)})" if details else str(row["status"])


def row(seen: Seen) -> dict[str, Any]:
    """Return the row of an instance, by column; if it cannot be read, with the reason."""
    if seen.instance is None:
        return {**dict.fromkeys(COLUMNS), "name": seen.name, "status": seen.status, "reason": seen.reason, **_NO_EXIT}
    return {**_described(seen.instance, seen.status), "reason": seen.reason or None}


_NO_EXIT: dict[str, Any] = {
    "ports": [],
    "exit_code": None,
    "exit_source": None,
    "exit_reporter": None,
    "oom_kills": None,
    "oom_reporter": None,
    "health": None,
    "restarts": None,
}


def _described(inst: Instance, status: str) -> dict[str, Any]:
    state, line, oom_kills = inst.state, inst.timeline, limits.oom_kills(inst)
    return {
        "name": inst.name,
        "mode": state.mode,
        "status": status,
        "image": inst.work.image,
        "pid": state.pid if status in ("running", "paused") else None,
        "address": state.address,
        "ports": [str(port) for port in published.of(inst)],
        "created": state.created,
        "ready_s": line.between_s("T0", "T6"),
        "exit_code": state.exit_code,
        "exit_source": state.exit_source,
        "exit_reporter": state.exit_reporter,
        "oom_kills": oom_kills,
        "oom_reporter": limits.oom_reporter(inst, oom_kills),
        "health": _health(inst, status),
        "restarts": state.restarts,
    }


def _health(inst: Instance, status: str) -> str | None:
    """Return starting, healthy or unhealthy; None for an instance that does not run, or has no check."""
    if status != "running" or not inst.state.health:
        return None
    from vmctl.keeping import health

    seen = health.seen(inst)
    return seen.status if seen else None


def _cell(name: str, value: Any) -> str:
    if value is None or value == []:
        return "-"
    if name == "created":
        return output.since(value)
    if name == "ready_s":
        return format_seconds(value)
    return ", ".join(value) if isinstance(value, list) else str(value)
