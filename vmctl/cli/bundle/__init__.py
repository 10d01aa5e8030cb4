"""vmctl bundle: one file per action, imported when that action is used."""

from __future__ import annotations

import argparse

from vmctl.cli.actions import Actions

EXAMPLE = "vmctl bundle make labs.tar"
# action -> text for `vmctl bundle --help`, in this order; the file of an action has `arguments` and `run`, like a verb
ACTIONS = {
    "make": "write images, a kernel and what guests start with into one file",
    "use": "add what a bundle contains to the image store, without a network",
}
_ACTIONS = Actions("bundle", ACTIONS)
arguments = _ACTIONS.arguments


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return _ACTIONS.run(args)
