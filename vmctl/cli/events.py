"""vmctl events."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from vmctl import happenings
from vmctl.cli import filters, moments, output
from vmctl.console import visible
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.instances.eventreader import Event

EXAMPLE = "vmctl events --since 1h --until 0s --filter event=die --format json"
FILTERS = ("event", "name", "container", "mode", "image", "label", "type")


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    filters.add(
        parser,
        "only events of this kind (event), name, mode, image or label; can be repeated: one of several values of a "
        "key, and all labels",
    )
    parser.add_argument(
        "--since",
        type=moments.parse_ns,
        metavar="TIME",
        help="first what has happened since a time, such as 10m (ago) or 2026-01-31T12:00:00Z",
    )
    parser.add_argument(
        "--until", type=moments.parse_ns, metavar="TIME", help="what has happened before a time, and end then"
    )
    output.add_format(parser)


def run(args: Namespace) -> int:
    """Print each event in one line until --until or Ctrl-C."""
    asked = filters.parse(args.filter, FILTERS)
    since_s, until_s = (None if at_ns is None else at_ns / 10**9 for at_ns in (args.since, args.until))
    if since_s is not None and until_s is not None and since_s > until_s:
        raise SpecError("--since: it is later than --until")
    for event in happenings.events(since_s, until_s):
        if _passes(event, asked):
            _show(event, args.format)
            sys.stdout.flush()
    return 0


def _passes(event: Event, asked: list[tuple[str, str]]) -> bool:
    """Return whether an event has all labels that are asked for, and of each other key one of its values."""
    if not all(filters.has_label(event.labels, value) for key, value in asked if key == "label"):
        return False
    has = {"event": event.action, "container": event.name, "type": "container"}
    keys = {key for key, _ in asked} - {"label"}
    return all((key, has.get(key, getattr(event, key, ""))) in asked for key in keys)


def _show(event: Event, form: str) -> None:
    row = {key: value for key, value in event._asdict().items() if value not in (None, {})}
    if form in ("json", "jsonl"):
        print(json.dumps(row))
        return
    if form != "table":
        output.show([{**event._asdict(), "status": event.action}], (), form)
        return
    when = datetime.fromtimestamp(event.time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    details = [f"{key}={value}" for key, value in row.items() if key not in ("time_s", "action", "name", "labels")]
    details += [f"label={key}={value}" for key, value in event.labels.items()]
    print(visible(f"{when} {event.action} {event.name} ({', '.join(details)})").replace("\n", "\\n"))
