"""The whole command line as a list: each verb, each action, with the parser that has its flags."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module

from vmctl.cli import VERBS, sentence
from vmctl.cli.parser import Parser
from vmctl.named import NamedTuple


class Command(NamedTuple):
    """A verb, or an action of a verb; `actions` are the names that come next, empty for a command without actions."""

    words: tuple[str, ...]
    parser: Parser
    text: str
    actions: tuple[str, ...]


def commands() -> Iterator[Command]:
    """Yield each verb in the order of `vmctl --help`, followed by its actions; the flags are those of all modes."""
    for verb, text in VERBS.items():
        module = import_module(f"vmctl.cli.{verb}")
        parser = Parser(prog=f"vmctl {verb}", description=sentence(text), words=["--help"])
        parser.example = module.EXAMPLE
        module.arguments(parser)
        yield from _command((verb,), parser, text)


def flags(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the flags of a command, except --help, which every command has."""
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


def positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a command that are not flags."""
    return [action for action in parser._actions if not action.option_strings]


def _command(words: tuple[str, ...], parser: argparse.ArgumentParser, text: str) -> Iterator[Command]:
    declare = getattr(parser, "declare", None)  # the parser of an action adds its arguments only when it is used
    if declare:
        declare()
    choices: dict[str, argparse.ArgumentParser] = {}
    texts: dict[str, str] = {}
    for action in positionals(parser):
        if isinstance(action, argparse._SubParsersAction):
            choices = action.choices
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
    assert isinstance(parser, Parser)
    yield Command(words, parser, text, tuple(choices))
    for name, inner in choices.items():
        yield from _command((*words, name), inner, texts[name].replace("%%", "%"))
