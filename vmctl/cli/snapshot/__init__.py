"""vmctl snapshot: one file per action. `vmctl snapshot NAME SNAPSHOT` means the action `take`."""

from __future__ import annotations

from vmctl.cli.actions import Actions

EXAMPLE = "vmctl snapshot db golden"
# action -> text for `--help`, in this order; the file of an action has `arguments` and `run`, like a verb
ACTIONS = {
    "take": "keep what an instance is now, for clones (the default: `vmctl snapshot NAME SNAPSHOT`)",
    "ls": "list snapshots",
    "inspect": "show details of snapshots as JSON",
    "rm": "remove snapshots",
    "prune": "remove snapshots that no clone uses",
}
_ACTIONS = Actions("snapshot", ACTIONS)
arguments = _ACTIONS.arguments
run = _ACTIONS.run


def expand(words: list[str]) -> list[str]:
    """Return the words with the action in front, for the short form `snapshot NAME SNAPSHOT`."""
    first = words[0] if words else ""
    given = [word for word in words if not word.startswith("-")]
    is_short = first not in ("-h", "--help", "", *ACTIONS) and len(given) <= 2
    return ["take", *words] if is_short else words  # of more words, the first one is an action of another program
