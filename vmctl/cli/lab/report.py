"""vmctl lab report."""

from __future__ import annotations

import argparse
import os

from bench.handins import record as records
from bench.handins import report
from bench.handins.session import FOLDER
from vmctl.errors import SpecError, VmctlError

EXAMPLE = "vmctl lab report lab-results"
FILES = {"report.html": report.page, "report.md": report.markdown, "handin.ipynb": report.notebook}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", default=FOLDER, help=f"folder of the record (default: {FOLDER})"
    )


def run(args: argparse.Namespace) -> int:
    """Write the reports next to the record, and print their paths. Raises NotFoundError, SpecError."""
    from vmctl.linux.filetree import write_atomic

    if os.path.isfile(args.folder):
        raise SpecError(f"{args.folder} is a file", hint="`vmctl lab report DIR` takes the folder of the record")
    record = records.read(args.folder)
    for name, write in FILES.items():
        path = os.path.join(args.folder, name)
        try:
            write_atomic(path, write(record))
        except OSError as error:
            raise VmctlError(f"cannot write {path}: {error.strerror}") from None
        print(path, flush=True)
    print(os.path.join(args.folder, records.FILE))
    return 0
