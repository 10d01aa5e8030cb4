"""vmctl lab class."""

from __future__ import annotations

import argparse
import sys

from bench.classroom import effects, page
from bench.handins import record as records
from vmctl.cli import output
from vmctl.console import visible
from vmctl.errors import SpecError, VmctlError

EXAMPLE = "vmctl lab class --out class.html handins/*.json"
_FILES_MAX = 500


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="record of a run of labs, its folder, or a notebook")
    parser.add_argument("--out", default="class.html", metavar="FILE", help="page to write (default: class.html)")
    parser.add_argument("--anonymous", action="store_true", help="numbers in the place of the students' names")
    parser.add_argument(
        "--format", choices=("html", "csv"), default="html", help="html: the page (default); csv: to the output"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path; return 1 if a file could not be read. Raises SpecError, VmctlError."""
    from vmctl.linux.filetree import write_atomic

    if len(args.files) > _FILES_MAX:
        raise SpecError(f"{len(args.files)} files are given; the limit is {_FILES_MAX}")
    found, code = {}, 0
    for file in args.files:
        try:
            found[file] = records.read(file)
        except VmctlError as error:
            output.note(visible(f"{error}"))
            code = 1
    if not found:
        raise SpecError("none of the files is a record of labs", hint="`vmctl lab run` writes lab-results")
    together = effects.gathered(found, anonymous=args.anonymous)
    if args.format == "csv":
        sys.stdout.write(page.table(together))
        return code
    try:
        write_atomic(args.out, page.page(together))
    except OSError as error:
        raise VmctlError(f"cannot write {args.out}: {error.strerror}") from None
    print(args.out)
    return code
