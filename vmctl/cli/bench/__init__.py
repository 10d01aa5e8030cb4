"""vmctl bench: one short file per action, imported only for that action. `vmctl bench SPEC` means the action `run`."""

from __future__ import annotations

import os

from vmctl.cli.actions import Actions
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

MOST = 10_000  # rounds, trials, instances: with more, planning would take hours, or the measurement never end

EXAMPLE = "vmctl bench web.yaml --modes host,container,vm"
# action -> its help, in the order of `vmctl bench --help`; its file has `arguments` and `run`, like that of a verb
ACTIONS = {
    "run": "measure a workload file in several modes, side by side (the default: `vmctl bench SPEC`)",
    "compare": "compare two results of the same host",
    "report": "write a result as a page, as tables, or in the formats of other programs",
    "verify": "compute every figure of a result again from its raw samples",
    "history": "show how the figures of a workload have changed from result to result",
    "self-test": "test on this machine whether the method finds a difference of 3 %, and none between equals",
    "peers": "compare the cost of vmctl with that of runc and others",
    "images": "compare the import of an image with tar and mkfs.erofs",
    "clones": "compare clones with cold and warm starts, in containers and guests",
    "schema": "print the JSON Schema of result.json",
}
_MEASURED = Actions("bench", ACTIONS)
arguments, run = _MEASURED.arguments, _MEASURED.run


def expand(words: list[str]) -> list[str]:
    """Return the words with the action in front, for short forms such as `bench web.yaml` and `bench --self-test`."""
    first = words[0] if words else ""
    if first in ("-h", "--help") or first in ACTIONS:
        return words
    if first.removeprefix("--") in ("self-test", "peers", "images"):
        return [first.removeprefix("--"), *words[1:]]
    return ["run", *words]


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raise SpecError for a flag with a number below 1 or above MOST."""
    for name in names:
        count = getattr(args, name)
        if count is not None and not 1 <= count <= MOST:
            raise SpecError(f"--{name} has to be between 1 and {MOST:,}, not {count}")


def items(flag: str, text: str) -> list[str]:
    """Return the comma-separated names in a flag. Raises SpecError if one of them is empty."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise SpecError(f"{flag} {text!r} contains an empty name", hint="separate names by commas, such as a,b")
    return found


def seed(asked: int | None) -> int:
    """Return the given seed, or a random one."""
    return int.from_bytes(os.urandom(2)) if asked is None else asked
