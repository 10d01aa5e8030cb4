"""The text about a command line that the parser does not understand: the error, a hint, one line of usage."""

from __future__ import annotations

import argparse

from vmctl.cli import foreign
from vmctl.cli.parser import Parser
from vmctl.console import visible


def text(parser: Parser, message: str) -> str:
    """Return the lines for an error of `parser`: the error first, the usage last, because both can be long."""
    hint = (
        foreign.of_flags(_command(parser), parser.words, parser._option_string_actions, message)
        or _of_action(parser, message)
        or parser.unknown_hint(message)
        or f"`{parser.prog} --help`"
    )
    return f"vmctl: {visible(message)}\nhint: {visible(hint)}\n{_usage(parser)}\n"


def _command(parser: Parser) -> str:
    return parser.prog.removeprefix("vmctl ")


def _of_action(parser: Parser, message: str) -> str:
    """Return the hint for an action that does not exist, or ""."""
    wrong = next(
        (word for word in parser.words if message.startswith(f"argument ACTION: invalid choice: {word!r}")), ""
    )
    if not wrong:
        return ""
    actions = [name for action in parser._actions for name in action.choices or () if action.dest == "action"]
    verb = _command(parser)
    return foreign.of_verb([f"{verb} {wrong}"], [f"{verb} {name}" for name in actions])


def _usage(parser: Parser) -> str:
    """Return the usage in one line: the flags are in the help."""
    flags = "[-h] [FLAGS]" if len(parser._option_string_actions) > 2 else "[-h]"
    own = [_positional(action) for action in parser._actions if not action.option_strings]
    return " ".join(("usage:", parser.prog, flags, *own))


def _positional(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    several = " ..." if action.nargs in ("+", "*", argparse.REMAINDER, argparse.PARSER) else ""
    optional = action.nargs in ("?", "*", argparse.REMAINDER)
    return f"[{name}{several}]" if optional else f"{name}{several}"
