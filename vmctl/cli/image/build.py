"""vmctl image build."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl.cli import output
from vmctl.console import Filter
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING
from vmctl.spec import flags, textfile

if TYPE_CHECKING:
    from images.store.image import Image

EXAMPLE = "vmctl image build --tag web ."
_TEXT_COLUMNS = 120
_SECRET_BYTES = 500 << 10  # as in Docker


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "what",
        metavar="RECIPE|DOCKERFILE|FOLDER|-",
        help="file, folder, name of a shipped recipe such as debian, or - for a Dockerfile on standard input",
    )
    parser.add_argument("-t", "--tag", metavar="NAME", help="name of the image (default: the recipe's or folder's)")
    parser.add_argument(
        "-f", "--file", default="", help="Dockerfile or recipe, if it is not in the folder; - is standard input"
    )
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME[=VALUE]", help="value for an ARG")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME[=VALUE]", help="label of the image, as by LABEL"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a key of a recipe")
    parser.add_argument("--target", default="", metavar="STAGE", help="last stage to build")
    parser.add_argument(
        "--network",
        choices=("bridge", "none", "host"),
        default="bridge",
        help="network for RUN steps (default: bridge)",
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=NAME[,src=FILE|,env=VAR]",
        help="secret for `RUN --mount=type=secret`: a file, or an environment variable (default: of that name)",
    )
    parser.add_argument("--no-cache", action="store_true", help="run every step again")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the image's digest")


def run(args: argparse.Namespace) -> int:
    """Build an image and print its digest."""
    from images.recipes import tiny

    print((tiny.build() if args.what == tiny.NAME and not args.file else build_image(args)).digest)
    return 0


def build_image(args: argparse.Namespace) -> Image:
    """Build an image and return it."""
    from images.recipes import builder, buildinput
    from images.recipes.options import Options
    from images.store import reference
    from vmctl.steprunner import StepRunner

    found = buildinput.find(args.what, args.file, [_pair(text, "--set") for text in args.set])
    if not (name := args.tag or found.name):
        raise SpecError("a Dockerfile on standard input gives the image no name", hint="--tag NAME")
    options = Options(
        name=reference.of_new_image(name),
        context=found.context,
        arguments=dict(map(_argument, args.build_arg)),
        target=args.target,
        cache=not args.no_cache,
        network=args.network,
        epoch_s=_epoch(),
        secrets=dict(map(_secret, args.secret)),
        labels=flags.pairs(args.label),
    )
    report = _Report(quiet=args.quiet)
    try:
        return builder.build(found.build_file, options, report, StepRunner())
    finally:
        report.end()


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SpecError(f"{flag}: expected KEY=VALUE, got {text}")
    return name, value


def _argument(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and name not in os.environ:
        raise SpecError(
            f"--build-arg {name}: it has no value, and no environment variable has that name",
            hint=f"--build-arg {name}=VALUE",
        )
    return name, value if equals else os.environ[name]


def _secret(text: str) -> tuple[str, bytes]:
    """Return the name and the content of a secret. Raises SpecError."""
    pairs = [field.partition("=")[::2] for field in text.split(",")]
    given = {{"source": "src"}.get(name, name): value for name, value in pairs}
    name = given.get("id", "")
    if (
        not name
        or not all(given.values())
        or given.keys() - {"id", "src", "env", "type"}
        or {"src", "env"} <= set(given)
    ):
        raise SpecError(f"--secret: expected id=NAME, and src=FILE or env=VARIABLE, got {text[:80]}")
    variable = given.get("env", "" if "src" in given else name)
    if variable in os.environ:
        return name, os.environb[os.fsencode(variable)]
    if "env" in given:
        raise SpecError(f"--secret: there is no environment variable {variable}")
    try:
        content = textfile.content(given.get("src", name), _SECRET_BYTES)
    except OSError as error:
        raise SpecError(f"--secret: {given.get('src', name)} cannot be read: {error.strerror}") from None
    if len(content) > _SECRET_BYTES:
        raise SpecError(f"--secret: {given.get('src', name)} has more than {_SECRET_BYTES >> 10} KiB")
    return name, content


def _epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds; see reproducible-builds.org/specs/source-date-epoch."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdigit():
        raise SpecError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {text}")
    return int(text) if text else None


class _Report:
    """Print the steps and the output of their commands to standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._progress = output.Progress()
        self._head = ""  # the first line of the current step
        self._shown = False  # whether the head has been printed
        self._filter = Filter() if sys.stderr.isatty() else None
        self._in_line = False  # whether the last output of a command did not end with a newline

    def step(self, number: int, total: int, text: str) -> None:
        """See images.recipes.options.Reporter."""
        text = text if len(text) <= _TEXT_COLUMNS else text[: _TEXT_COLUMNS - 3] + "..."
        self._head, self._shown = f"[{number}/{total}] {text}", False
        self.progress("")

    def done(self, how: str) -> None:
        """See images.recipes.options.Reporter."""
        self._end_line()
        if self._shown:
            self._print(f"      {how}" if how else "")
        else:
            self._print(f"{self._head}  {how}".rstrip())

    def output(self, data: bytes) -> None:
        """See images.recipes.options.Reporter."""
        if self._quiet:
            return
        if not self._shown:
            self._shown = True
            self._print(self._head)
        shown = self._filter.feed(data) if self._filter else data
        sys.stderr.buffer.write(shown)
        sys.stderr.buffer.flush()
        if shown:
            self._in_line = not shown.endswith(b"\n")

    def progress(self, text: str) -> None:
        """See images.recipes.options.Reporter."""
        if not self._quiet:
            self._progress(f"{self._head}  {text}".rstrip())

    def warn(self, text: str) -> None:
        """See images.recipes.options.Reporter."""
        self._print(f"warning: {text}")

    def end(self) -> None:
        """Complete the last line and remove the progress."""
        self._end_line()
        self._progress.clear()

    def _end_line(self) -> None:
        if self._filter and (rest := self._filter.end()):
            sys.stderr.buffer.write(rest)
        if self._in_line:
            self._in_line = False
            self._print("")

    def _print(self, text: str) -> None:
        self._progress.clear()
        if not self._quiet:
            output.note(text)
