"""vmctl image: one short file per action, imported when that action is typed."""

from __future__ import annotations

import argparse
from importlib import import_module
from keyword import iskeyword

from vmctl.cli import Parser, sentence
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# action -> what it does, in the order of `vmctl image --help`; its file has `arguments` and `run`, as a verb's has
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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions; each declares its own arguments once it is chosen."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_ActionParser)
    for name, text in ACTIONS.items():
        actions.add_parser(name, help=text, description=sentence(text)).action = name


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    code: int = _module(args.action).run(args)
    return code


class _ActionParser(Parser):
    """The parser of one action: only that action's file is imported."""

    action = ""  # nothing for the parsers that an action has of its own

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """As argparse has it, which calls this once, on the parser of the action that was typed."""
        if self.action:
            _module(self.action).arguments(self)
        found, unknown = super().parse_known_args(*args, **named)
        if unknown:  # argparse would leave it to the parser of the verb, and that would show its own usage
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def _module(action: str) -> ModuleType:
    """Return the module of an action; `import` is a word of Python, so its file is import_.py."""
    return import_module(f"vmctl.cli.image.{action}{'_' if iskeyword(action) else ''}")
