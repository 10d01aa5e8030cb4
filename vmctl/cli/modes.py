"""The flags that choose a mode, and those that a mode offers itself: each backend states its options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import suppress

from vmctl import backends
from vmctl.cli import Parser
from vmctl.errors import SpecError, VmctlError

DEFAULT = "container"
_DEST = "option_"


def add(parser: argparse.ArgumentParser) -> None:
    """Add --mode and the flags of the mode that was typed; --help shows those of every mode."""
    parser.add_argument("--mode", default=DEFAULT, help=f"how to run it: vm, container or host (default: {DEFAULT})")
    words = parser.words if isinstance(parser, Parser) else ()
    if {"-h", "--help"} & set(words):
        add_options(parser, sorted(backends.modes()))
    else:  # only one backend is loaded, and it is needed anyway
        add_options(parser, [_typed(words)])


def add_options(parser: argparse.ArgumentParser, modes: Iterable[str]) -> None:
    """Add the flags of these modes; a mode that cannot be loaded has none."""
    added: set[str] = set()
    for mode in modes:
        with suppress(VmctlError):
            for option in backends.options(mode):
                if option.name in added:  # two modes may offer the same
                    continue
                added.add(option.name)
                parser.add_argument(
                    f"--{option.name}",
                    dest=f"{_DEST}{option.name}",
                    choices=option.choices or None,
                    metavar=option.metavar,
                    help=option.help,
                )
    if isinstance(parser, Parser):
        parser.unknown_hint = _of_another_mode


def chosen(args: argparse.Namespace, modes: Sequence[str] = ()) -> dict[str, str]:
    """Return the options that were typed, by name. Raises SpecError for one that none of `modes` has."""
    typed = {name.removeprefix(_DEST): text for name, text in vars(args).items() if name.startswith(_DEST) and text}
    for name in typed if modes else ():
        if not any(backends.suited(mode, {name: ""}) for mode in modes):
            raise SpecError(f"--{name} is no option of mode {', '.join(modes)}", hint=_of_another_mode(f"--{name}"))
    return typed


def _typed(words: Sequence[str]) -> str:
    """Return the mode in the words of a command, before the workload's own."""
    mode = DEFAULT
    for number, word in enumerate(words):
        if word == "--":
            break
        if word.startswith("--mode="):
            mode = word.partition("=")[2]
        elif word == "--mode" and words[number + 1 : number + 2]:
            mode = words[number + 1]
    return mode


def _of_another_mode(text: str) -> str:
    """Return what to do about an unknown flag that another mode offers; empty if none does."""
    for mode in sorted(backends.modes()):
        with suppress(VmctlError):
            for option in backends.options(mode):
                if f"--{option.name}" in text.split():
                    return f"--{option.name} is an option of mode {mode}"
    return ""
