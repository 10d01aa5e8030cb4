"""The flags of `vmctl up` that are for stacks, and the files that it reads."""

from __future__ import annotations

import os

from vmctl.cli.stacknames import is_file
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

STDIN = "-"


def arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `up` that are for stacks."""
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="stack file; of several, each overrides those before",
    )
    parser.add_argument(
        "--profile", action="append", default=[], metavar="NAME", help="stack: start the services of this profile too"
    )
    parser.add_argument(
        "--env-file",
        action="append",
        default=[],
        metavar="FILE",
        help="stack: file of variables (default: .env next to the stack file)",
    )
    parser.add_argument(
        "--mode-of", action="append", default=[], metavar="SERVICE=MODE", help="stack: mode of one service"
    )
    parser.add_argument(
        "--scale", action="append", default=[], metavar="SERVICE=N", help="stack: number of instances of a service"
    )
    parser.add_argument("--build", action="store_true", help="stack: build images even if the store has them")
    parser.add_argument(
        "--pull",
        choices=("never", "missing", "always"),
        help="stack: whether to download images (default: `pull_policy` of the service, else never)",
    )
    parser.add_argument(
        "--force-recreate", action="store_true", help="stack: replace instances even if nothing has changed"
    )
    parser.add_argument(
        "--remove-orphans", action="store_true", help="stack: remove instances of services that the file no longer has"
    )
    parser.add_argument("-d", "--detach", action="store_true", help="no effect: instances are always in the background")


def files(args: Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the files and the services that the words of `up` name. Raises SpecError."""
    words = tuple(args.spec)
    if args.file:
        return tuple(args.file), words
    if words and (is_file(words[0]) or words[0] == STDIN or os.path.isfile(words[0])):
        return words[:1], words[1:]
    from vmctl.stacks import reading

    if usual := reading.usual_files("."):
        return tuple(map(os.path.normpath, usual)), words
    if words:
        return words[:1], words[1:]
    raise SpecError("required: SPEC, or a compose.yaml in this folder", hint="vmctl up FILE")
