"""The flag --mode, and the flags of each mode, which come from the options of its backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from vmctl import backends, fromflags
from vmctl.errors import SpecError, VmctlError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_DEST = "option_"


def add(parser: ArgumentParser, default: str | None = fromflags.MODE) -> None:
    """Add --mode and the flags of the given modes; --help shows the flags of all modes."""
    parser.add_argument(
        "--mode", default=default, help=f"how to run it: vm, container or host (default: {fromflags.MODE})"
    )
    words: Sequence[str] = getattr(parser, "words", ())
    if {"-h", "--help"} & set(words):
        add_options(parser, sorted(backends.modes()))
    else:  # load only the backend that is needed anyway
        add_options(parser, [_mode_in(words), *_modes_of_services(words)])


def add_options(parser: ArgumentParser, modes: Iterable[str]) -> None:
    """Add the flags of these modes, except of modes that cannot be loaded."""
    added: set[str] = set()
    for mode in modes:
        with suppress(VmctlError):
            for option in backends.options(mode):
                if option.name in added:  # two modes may have the same option
                    continue
                added.add(option.name)
                parser.add_argument(
                    f"--{option.name}",
                    dest=f"{_DEST}{option.name}",
                    choices=option.choices or None,
                    metavar=option.metavar,
                    help=option.help.replace("%", "%%"),
                )
    parser.unknown_hint = _of_another_mode  # type: ignore[attr-defined]


def chosen(args: Namespace, modes: Sequence[str] = ()) -> dict[str, str]:
    """Return the given options by name. Raises SpecError for an option that none of `modes` has."""
    given = {name.removeprefix(_DEST): text for name, text in vars(args).items() if name.startswith(_DEST) and text}
    for name in given if modes else ():
        if not any(backends.suited(mode, {name: ""}) for mode in modes):
            raise SpecError(f"mode {', '.join(modes)} has no option --{name}", hint=_of_another_mode(f"--{name}"))
    return given


def _mode_in(words: Sequence[str]) -> str:
    """Return the mode in the words of a command line, up to `--`."""
    mode = fromflags.MODE
    for number, word in enumerate(words):
        if word == "--":
            break
        if word.startswith("--mode="):
            mode = word.partition("=")[2]
        elif word == "--mode" and words[number + 1 : number + 2]:
            mode = words[number + 1]
    return mode


def _modes_of_services(words: Sequence[str]) -> list[str]:
    """Return the modes in `--mode-of SERVICE=MODE`, except those that do not exist."""
    found = [word.rpartition("=")[2] for word in words if word.startswith("--mode-of=")]
    found += [words[number + 1].partition("=")[2] for number, word in enumerate(words[:-1]) if word == "--mode-of"]
    return found


def _of_another_mode(text: str) -> str:
    """Return the hint for an unknown flag that another mode has, or "" if no mode has it."""
    for mode in sorted(backends.modes()):
        with suppress(VmctlError):
            for option in backends.options(mode):
                if f"--{option.name}" in text.split():
                    return f"--{option.name} is an option of mode {mode}"
    return ""
