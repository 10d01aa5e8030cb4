"""vmctl bench: one short file per action, imported when that action is typed; `vmctl bench SPEC` is the first one."""

from __future__ import annotations

import os

from vmctl.cli.actions import Actions
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

MOST = 10_000  # rounds, trials, instances: more would be planned for hours before the first sample, or never end

EXAMPLE = "vmctl bench web.yaml --modes host,container,vm"
# action -> what it does, in the order of `vmctl bench --help`; its file has `arguments` and `run`, as a verb's has
ACTIONS = {
    "run": "measure a workload file in several modes, side by side (`vmctl bench SPEC` means this)",
    "compare": "compare two results of the same host",
    "report": "write a result again as a page, as tables or for other programs",
    "verify": "compute every figure of a result again from its raw samples",
    "history": "show how the figures of one workload have changed from result to result",
    "self-test": "measure what has no difference, and what has one of 3 %, and see whether that is found",
    "peers": "measure our own cost beside that of runc and others",
    "images": "measure an image's import beside tar and mkfs.erofs",
    "schema": "print the JSON Schema of result.json",
}
_MEASURED = Actions("bench", ACTIONS)
arguments, run = _MEASURED.arguments, _MEASURED.run


def expand(words: list[str]) -> list[str]:
    """Return the words with the action that is meant: `bench web.yaml`, `bench --self-test`."""
    first = words[0] if words else ""
    if first in ("-h", "--help") or first in ACTIONS:
        return words
    if first.removeprefix("--") in ("self-test", "peers", "images"):
        return [first.removeprefix("--"), *words[1:]]
    return ["run", *words]


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raise SpecError for a flag that counts something and says less than 1 or more than MOST."""
    for name in names:
        count = getattr(args, name)
        if count is not None and not 1 <= count <= MOST:
            raise SpecError(f"--{name} has to be from 1 to {MOST:,}, not {count}")


def items(flag: str, text: str) -> list[str]:
    """Return the names that a flag lists, commas between them. Raises SpecError where one of them is empty."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise SpecError(f"{flag} {text!r} has an empty name", hint="names with commas between them, such as a,b")
    return found


def seed(asked: int | None) -> int:
    """Return the seed that was asked for, else one made up."""
    return int.from_bytes(os.urandom(2)) if asked is None else asked
