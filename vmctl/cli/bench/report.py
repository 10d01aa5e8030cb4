"""vmctl bench report."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl.errors import SpecError, VmctlError

EXAMPLE = "vmctl bench report --format md --out report.md results"
# format -> the name of the file beside the result
_FILES = {"html": "report.html", "md": "report.md", "csv": "samples.csv", "hyperfine": "hyperfine.json"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("result", metavar="RESULT", help="result.json, or the folder it is in")
    parser.add_argument("--format", choices=tuple(_FILES), default="html", help="default: html, a page of its own")
    parser.add_argument("--out", metavar="FILE", help="where to; - for stdout (default: beside the result)")


def run(args: argparse.Namespace) -> int:
    """Write, and print where to."""
    from bench import result as results
    from vmctl.linux.filetree import write_atomic

    source = results.path_of(args.result)
    text = _text(source, args.format)
    if args.out == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())  # a file's content, whatever the locale of the terminal
        sys.stdout.buffer.flush()
        return 0
    path = args.out or os.path.join(os.path.dirname(source), _FILES[args.format])
    if os.path.exists(path) and os.path.samefile(path, source):
        raise SpecError(f"{path} is the result itself", hint="name another file with --out")
    try:
        write_atomic(path, text)
    except OSError as error:
        raise VmctlError(f"{path} cannot be written: {error.strerror}", hint="`--out FILE` names another") from None
    print(path)
    return 0


def _text(source: str, form: str) -> str:
    from bench import export
    from bench import result as results

    found = results.read(source)
    if form == "html":
        from bench.report.page import page

        return page(found)
    return {"md": export.markdown, "csv": export.samples_csv, "hyperfine": export.hyperfine}[form](found)
