"""The parser of a verb: argparse, with our errors and an example in each help text."""

from __future__ import annotations

import argparse
import os
from functools import partial

from vmctl.cli import VERBS, sentence
from vmctl.errors import EXIT_VMCTL
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argparse parser for `words`, with an example at the end of its help, and exit code 125 for wrong arguments."""

    example = ""  # a command line, shown by `--help`

    def __init__(self, *, words: Sequence[str] = (), **options: Any) -> None:
        self.words = words
        self.unknown_hint: Callable[[str], str] = lambda message: ""
        # without the width argparse imports shutil, and shutil three compression libraries: 4 ms
        super().__init__(**options, formatter_class=partial(argparse.HelpFormatter, width=columns()))

    def format_help(self) -> str:
        """Return the help text and the example, which is never wrapped."""
        example = f"\nexample:\n  {self.example}\n" if self.example else ""
        return super().format_help() + example

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add an argument; one that takes the rest of the line can be empty, so it is not reported as missing."""
        action = super().add_argument(*names, **options)
        action.required = action.required and action.nargs != argparse.REMAINDER
        return action

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse `--` as a value, as in `-u--`, of which argparse makes an empty list."""
        if action.nargs is None and arg_strings == ["--"]:
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Print the error, a hint and one line about the usage, and exit with 125."""
        from vmctl.cli import mistakes

        self.exit(EXIT_VMCTL, mistakes.text(self, message))


def columns() -> int:
    """Return the width of the terminal, or COLUMNS if that is set."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def parse(verb: str, module: ModuleType, words: list[str]) -> argparse.Namespace:
    """Return the parsed arguments of a verb. Raises SystemExit if they are wrong."""
    parser = Parser(prog=f"vmctl {verb}", description=sentence(VERBS[verb]), words=words)
    parser.example = module.EXAMPLE
    try:
        module.arguments(parser)
    except argparse.ArgumentError as error:  # a backend has an option with the name of a flag of this verb
        parser.error(str(error))
    return parser.parse_args(words)
