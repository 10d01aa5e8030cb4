"""vmctl image: one short file per action, imported when that action is typed."""

from __future__ import annotations

import argparse

from vmctl.cli import leasing
from vmctl.cli.actions import Actions

EXAMPLE = "vmctl image ls"
# action -> text, in the order of `vmctl image --help`; the file of an action has `arguments` and `run`, like a verb's
ACTIONS = {
    "ls": "list images",
    "pull": "get an image from a registry",
    "push": "send an image to a registry",
    "import": "get images from a file or folder: docker save, OCI, a root file system, a disk",
    "export": "write an image as an archive that other tools read",
    "login": "keep the password for a registry",
    "logout": "forget the password for a registry",
    "build": "build an image from a recipe or a Dockerfile",
    "inspect": "show all that is known of images, as JSON",
    "history": "list what an image was made by, the newest first",
    "rm": "remove images",
    "prune": "remove what no image and no instance needs",
    "kernel": "list, fetch, add and remove kernels for guests",
}
_ACTIONS = Actions("image", ACTIONS)
arguments = _ACTIONS.arguments


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    leasing.complete()
    return _ACTIONS.run(args)
