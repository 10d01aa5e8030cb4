"""vmctl image prune."""

from __future__ import annotations

import argparse

from vmctl.cli import prune as prune_verb

EXAMPLE = "vmctl image prune --all"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    prune_verb.add_choices(parser)


def run(args: argparse.Namespace) -> int:
    """Remove unused data of the image store, but no instance, and print what was removed."""
    from images.upkeep import prune

    return prune_verb.prune(prune.unused(everything=args.all), args)
