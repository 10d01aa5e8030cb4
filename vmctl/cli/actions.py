"""Verbs with actions, such as `vmctl image ls`: each action is a file, imported when that action is used."""

from __future__ import annotations

import argparse
from importlib import import_module
from keyword import iskeyword

from vmctl.cli import sentence
from vmctl.cli.parser import Parser
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Actions:
    """The actions of one verb: action -> text for `--help`, in this order."""

    def __init__(self, verb: str, texts: dict[str, str]) -> None:
        self.verb, self.texts = verb, texts

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the actions; the arguments of an action are declared when it is used."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_ActionParser)
        for name, text in self.texts.items():
            actions.add_parser(name, help=text.replace("%", "%%"), description=sentence(text)).module = self._module(
                name
            )

    def run(self, args: argparse.Namespace) -> int:
        """Run the action."""
        code: int = import_module(self._module(args.action)).run(args)
        return code

    def _module(self, action: str) -> str:
        """Return the module of an action; `import` is a keyword of Python, so its file is import_.py."""
        return f"vmctl.cli.{self.verb}.{action.replace('-', '_')}{'_' if iskeyword(action) else ''}"


class _ActionParser(Parser):
    """The parser of one action; it imports the file of the action when argparse selects it."""

    module = ""  # empty for a parser below an action, such as that of `image kernel ls`

    def declare(self) -> None:
        """Add the arguments of the action."""
        if self.module:
            action = import_module(self.module)
            self.example = action.EXAMPLE
            action.arguments(self)

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """Declare the arguments and parse; argparse calls this once, for the action that is used."""
        self.words = args[0] if args and args[0] else ()
        self.declare()
        found, unknown = super().parse_known_args(*args, **named)
        if unknown:  # argparse would report it with the usage of the verb
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown
