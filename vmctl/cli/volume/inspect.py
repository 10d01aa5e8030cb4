"""vmctl volume inspect."""

from __future__ import annotations

import argparse

from vmctl.cli import output

EXAMPLE = "vmctl volume inspect data"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="name of a volume")
    output.add_format_of_documents(parser, "Mountpoint")


def run(args: argparse.Namespace) -> int:
    """Print a JSON array, or the text of a template for each."""
    from vmctl.cli.volume.ls import row
    from vmctl.volumes import store

    output.show_documents([row(store.find(name)) for name in args.names], args.format, _like_docker)
    return 0


def _like_docker(volume: output.Row) -> output.Row:
    return {"Mountpoint": volume["path"]}
