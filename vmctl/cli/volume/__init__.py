"""vmctl volume: one file per action, imported when that action is used."""

from __future__ import annotations

from vmctl.cli.actions import Actions

EXAMPLE = "vmctl volume ls"
# action -> text for `vmctl volume --help`, in this order; the file of an action has `arguments` and `run`, like a verb
ACTIONS = {
    "create": "create a volume: files that outlive instances",
    "ls": "list volumes",
    "inspect": "show details of volumes as JSON",
    "rm": "remove volumes with their files",
    "prune": "remove volumes that no instance uses",
}
_ACTIONS = Actions("volume", ACTIONS)
arguments = _ACTIONS.arguments
run = _ACTIONS.run
