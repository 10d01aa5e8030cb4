"""Verbs that have actions of their own: each action is a file, imported when that action is typed."""

from __future__ import annotations

import argparse
from importlib import import_module
from keyword import iskeyword

from vmctl.cli import Parser, sentence
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Actions:
    """The actions of one verb: action -> what it does, in the order of `--help`."""

    def __init__(self, verb: str, texts: dict[str, str]) -> None:
        self.verb, self.texts = verb, texts

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the actions; each declares its own arguments once it is chosen."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_ActionParser)
        for name, text in self.texts.items():
            actions.add_parser(name, help=text.replace("%", "%%"), description=sentence(text)).module = self._module(
                name
            )

    def run(self, args: argparse.Namespace) -> int:
        """Do what the action says."""
        code: int = import_module(self._module(args.action)).run(args)
        return code

    def _module(self, action: str) -> str:
        """Return the module of an action; `import` is a word of Python, so its file is import_.py."""
        return f"vmctl.cli.{self.verb}.{action.replace('-', '_')}{'_' if iskeyword(action) else ''}"


class _ActionParser(Parser):
    """The parser of one action: only that action's file is imported."""

    module = ""  # none for the parsers that an action has of its own

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """As argparse has it, which calls this once, on the parser of the action that was typed."""
        if self.module:
            import_module(self.module).arguments(self)
        found, unknown = super().parse_known_args(*args, **named)
        if unknown:  # argparse would leave it to the parser of the verb, and that would show its own usage
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown
