"""vmctl network: one file per action, imported when that action is used."""

from __future__ import annotations

import argparse

from vmctl.cli.actions import Actions

EXAMPLE = "vmctl network ls"
# action -> text for `vmctl network --help`, in this order; the file of an action has `arguments` and `run`, like a verb
ACTIONS = {
    "create": "create a network",
    "ls": "list networks",
    "inspect": "show details of networks as JSON",
    "connect": "add a network to those of an instance",
    "disconnect": "take a network from those of an instance",
    "rm": "remove networks",
    "prune": "remove networks that no instance is in",
}
_ACTIONS = Actions("network", ACTIONS)
arguments = _ACTIONS.arguments


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return _ACTIONS.run(args)
