"""vmctl events."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from vmctl import happenings
from vmctl.cli import filters, output
from vmctl.console import visible
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.happenings import Event

EXAMPLE = "vmctl events --filter event=die --format json"
FILTERS = ("event", "name", "container", "mode", "image", "label")


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    filters.add(parser, "only events of this kind (event), name, mode, image or label; can be repeated")
    output.add_format(parser)


def run(args: Namespace) -> int:
    """Print each event in one line until Ctrl-C."""
    asked = filters.parse(args.filter, FILTERS)
    for event in happenings.events():
        if all(_passes(event, key, value) for key, value in asked):
            _show(event, args.format)
            sys.stdout.flush()
    return 0


def _passes(event: Event, key: str, value: str) -> bool:
    if key == "label":
        try:
            labels = instance.load(event.name).work.labels
        except VmctlError:  # it is gone, or cannot be read
            return False
        return filters.has_label(labels, value)
    return value == {"event": event.action, "container": event.name}.get(key, getattr(event, key, ""))


def _show(event: Event, form: str) -> None:
    row = {key: value for key, value in event._asdict().items() if value is not None}
    if form in ("json", "jsonl"):
        print(json.dumps(row))
        return
    if form != "table":
        output.show([{**event._asdict(), "status": event.action}], (), form)
        return
    when = datetime.fromtimestamp(event.time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    details = {key: value for key, value in row.items() if key not in ("time_s", "action", "name")}
    text = ", ".join(f"{key}={value}" for key, value in details.items())
    print(visible(f"{when} {event.action} {event.name} ({text})"))
