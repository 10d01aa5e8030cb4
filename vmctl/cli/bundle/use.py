"""vmctl bundle use."""

from __future__ import annotations

import argparse

from vmctl.cli import output

EXAMPLE = "vmctl bundle use labs.tar"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="file that `vmctl bundle make` has written")


def run(args: argparse.Namespace) -> int:
    """Add what the bundle contains, and print each part."""
    from bench import labs
    from images.bundles import using

    progress = output.Progress()
    try:
        index, used = using.use(args.file, progress)
    finally:
        progress.clear()
    for part in used:
        print(f"{part.kind} {part.name}{'' if part.new else ' (in the store already)'}")
    here = labs.digests()
    if differing := [name for name, digest in index.labs.items() if here.get(name) != digest]:
        output.note(
            f"warning: the labs {', '.join(sorted(differing))} are others than those of the bundle's vmctl "
            f"{index.vmctl}, so their verdicts may not compare"
        )
    return 0
