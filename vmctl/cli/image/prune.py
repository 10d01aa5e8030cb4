"""vmctl image prune."""

from __future__ import annotations

import argparse

from vmctl.cli import prune as prune_verb

EXAMPLE = "vmctl image prune --all"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    prune_verb.add_choices(parser)


def run(args: argparse.Namespace) -> int:
    """Remove what nobody needs, but no instance, and say what it was."""
    from images.upkeep import prune
    from vmctl import usage

    return prune_verb.prune(prune.unused(everything=args.all, others=usage.images()), args)
