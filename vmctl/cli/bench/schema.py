"""vmctl bench schema."""

from __future__ import annotations

import argparse
import json

EXAMPLE = "vmctl bench schema"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    from bench import result

    print(json.dumps(result.schema(), indent=1))
    return 0
