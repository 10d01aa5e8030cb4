"""vmctl lab: one file per action, imported when that action is used."""

from __future__ import annotations

import argparse

from vmctl.cli.actions import Actions

EXAMPLE = "vmctl lab run 1"
# action -> text for `vmctl lab --help`, in this order; the file of an action has `arguments` and `run`, like a verb
ACTIONS = {
    "ls": "list the labs",
    "show": "show a lab: its claim, its steps and the rule that decides",
    "run": "put claims to the test on this machine",
    "report": "write a page, Markdown and a notebook of the record",
    "check": "compute the verdicts of records again, and find what cannot be",
    "class": "write a page of many records: the same effect on each machine, and why they differ",
    "claim": "compute claims in words again from their figures, and find those that do not fit",
    "reset": "remove all instances, stacks, volumes and networks; images are kept",
}
_ACTIONS = Actions("lab", ACTIONS)
arguments = _ACTIONS.arguments


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return _ACTIONS.run(args)
