"""The command line: one short file per verb, imported when that verb is typed.

Only this package prints and exits. Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module

from vmctl import __version__
from vmctl.errors import EXIT_VMCTL, VmctlError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TextIO

# verb -> what it does, in the order of `vmctl --help`
VERBS = {
    "up": "start a workload file and wait until it is ready",
    "run": "run one command in an image, attached, and remove it afterwards",
    "ps": "list instances",
    "exec": "run one more command in a running instance",
    "shell": "open a shell in a running instance",
    "logs": "show what a workload wrote, or how a guest booted",
    "stop": "ask instances to end, kill them when they do not",
    "kill": "send a signal to instances",
    "wait": "wait until instances end and print their exit codes",
    "rm": "remove instances",
    "down": "stop and remove instances, by name or workload file",
    "inspect": "show all that is known of instances, as JSON",
    "diff": "list what an instance has changed of its image",
    "commit": "make an image of what an instance has written",
    "image": "list, get, build, hand out and remove images and kernels",
    "df": "show what images, instances, kernels and caches take of the disk",
    "prune": "remove instances that have ended, and what nobody needs of the image store",
    "bench": "measure a workload in several modes, side by side",
    "spec": "check a workload file, or print its JSON Schema",
    "doctor": "say what this host offers and what is missing",
    "completion": "print a completion script for bash, zsh or fish",
}

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Parser(argparse.ArgumentParser):
    """argparse, with our exit code for a wrong call."""

    def __init__(self, **options: Any) -> None:
        # told the width, it does not import shutil, and with that three compression libraries, to ask for it: 4 ms
        super().__init__(**options, formatter_class=partial(argparse.HelpFormatter, width=columns()))

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with 125."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_VMCTL, f"vmctl: {message}\nhint: `{self.prog} --help`\n")


def sentence(text: str) -> str:
    """Return what `--help` says in a word or two as a sentence; `capitalize` would make json of JSON."""
    return f"{text[0].upper()}{text[1:]}."


def columns() -> int:
    """Return how wide the terminal is, or is said to be (COLUMNS)."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def entry() -> NoReturn:
    """Run as a program. The shell gets the exit code before Python would have tidied up, which takes it 10 ms."""
    gc.disable()  # a command is too short to have garbage worth looking for
    _open_missing_streams()
    code = main()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _open_missing_streams() -> None:
    """Have /dev/null where the caller has closed a standard stream: the next file opened would take its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if sys.stdout.encoding.lower() != "utf-8" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # 210 µs in a locale that has no µ


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words[:1]
    words = words[1:] if debug else words
    if not words or words[0] in ("-h", "--help", "help"):
        return _help(sys.stdout if words else sys.stderr, 0 if words else EXIT_VMCTL)
    if words[0] == "--version":
        print(f"vmctl {__version__}")
        return 0
    if words[0] not in VERBS:
        return _unknown(words[0])
    for signum in ENDING:
        if signal.getsignal(signum) != signal.SIG_IGN:  # as under nohup(1)
            signal.signal(signum, _end)
    try:
        return _run_verb(words[0], words[1:])
    except VmctlError as error:
        if debug:
            raise
        return _report(error)
    except KeyboardInterrupt:
        print("vmctl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `vmctl logs web | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except OSError as error:
        if debug:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _report(VmctlError(f"{error.strerror or error}{where}", hint="`vmctl --debug VERB` shows where"))
    except Exception as error:
        if debug:
            raise
        text = f"a mistake of vmctl's own, {type(error).__name__}: {error}"
        return _report(VmctlError(text, hint=f"`vmctl --debug {words[0]}` shows where"))


def _end(signum: int, _: object) -> NoReturn:
    """End as the signal would have ended us, but by an exception: what was begun is undone on the way.

    From then on no other signal cuts that short, however impatient whoever sends it.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + signum)


def _run_verb(verb: str, words: list[str]) -> int:
    module = import_module(f"vmctl.cli.{verb}")
    parser = Parser(prog=f"vmctl {verb}", description=sentence(VERBS[verb]))
    module.arguments(parser)
    code: int = module.run(parser.parse_args(getattr(module, "expand", list)(words)))
    sys.stdout.flush()
    return code


def _report(error: VmctlError) -> int:
    print(f"vmctl: {error}", file=sys.stderr)
    if error.detail:
        print(error.detail, file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


def each(names: Sequence[str], act: Callable[[str], object], *, say: bool = True) -> int:
    """Do something to each of several things and `say` its name; one that fails keeps none of the others from it.

    Return 0, or the exit code of the last failure.
    """
    code = 0
    for name in names:
        try:
            act(name)
        except VmctlError as error:
            sys.stdout.flush()
            code = _report(error)
        else:
            if say:
                print(name)
    return code


def _help(stream: TextIO, code: int) -> int:
    lines = [
        "Usage: vmctl [--debug] VERB ...\n",
        "One workload, run as a QEMU/KVM guest, a container or a plain process.\n",
        *(f"  {verb:<11} {text}" for verb, text in VERBS.items()),
        "\n`vmctl VERB --help` says more, `vmctl --version` which version this is.",
    ]
    print("\n".join(lines), file=stream)
    return code


def _unknown(verb: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(verb, VERBS, 1)
    hint = f"did you mean {near[0]}?" if near else "`vmctl --help` lists the verbs"
    return _report(VmctlError(f"there is no verb {verb}", hint=hint))
