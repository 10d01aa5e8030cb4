"""vmctl image: one file per action, imported when that action is used."""

from __future__ import annotations

import argparse

from vmctl.cli import leasing
from vmctl.cli.actions import Actions

EXAMPLE = "vmctl image ls"
# action -> text for `vmctl image --help`, in this order; the file of an action has `arguments` and `run`, like a verb
ACTIONS = {
    "ls": "list images",
    "pull": "download an image from a registry",
    "push": "upload an image to a registry",
    "import": "import images from a file or folder: docker save, OCI, a root file system, a disk",
    "export": "write an image as an archive for other tools",
    "login": "store the password for a registry",
    "logout": "remove the password for a registry",
    "build": "build an image from a recipe or a Dockerfile",
    "inspect": "show details of images as JSON",
    "history": "list the steps that created an image, the newest first",
    "tag": "give an image another name",
    "rm": "remove images",
    "prune": "remove data that no image and no instance uses",
    "kernel": "list, fetch, add and remove kernels for guests",
}
_ACTIONS = Actions("image", ACTIONS)
arguments = _ACTIONS.arguments


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    leasing.complete()
    return _ACTIONS.run(args)
