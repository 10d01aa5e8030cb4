"""vmctl bench report."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl.errors import SpecError, VmctlError

EXAMPLE = "vmctl bench report --format md --out report.md results"
# format -> the name of the file next to the result
_FILES = {"html": "report.html", "md": "report.md", "csv": "samples.csv", "hyperfine": "hyperfine.json"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("result", metavar="RESULT", help="result.json, or its folder")
    parser.add_argument("--format", choices=tuple(_FILES), default="html", help="format (default: html)")
    parser.add_argument("--out", metavar="FILE", help="file to write, - for stdout (default: next to the result)")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    from bench import result as results
    from vmctl.linux.filetree import write_atomic

    source = results.path_of(args.result)
    text = _text(source, args.format)
    if args.out == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())  # the bytes of the file, independent of the locale
        sys.stdout.buffer.flush()
        return 0
    path = args.out or os.path.join(os.path.dirname(source), _FILES[args.format])
    if os.path.exists(path) and os.path.samefile(path, source):
        raise SpecError(f"{path} is the result itself", hint="`--out FILE` chooses another file")
    try:
        write_atomic(path, text)
    except OSError as error:
        raise VmctlError(f"cannot write {path}: {error.strerror}", hint="`--out FILE` chooses another file") from None
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
