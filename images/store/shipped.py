"""The recipes that are part of vmctl, configs/images/NAME.yaml, and advice for a name that no image has."""

from __future__ import annotations

import os

_LIST = "`vmctl image ls` lists the images"
_FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "images")


def names() -> list[str]:
    """Return the names of the recipes, sorted."""
    try:
        return sorted(name.removesuffix(".yaml") for name in os.listdir(_FOLDER) if name.endswith(".yaml"))
    except FileNotFoundError:
        return []


def advice(name: str, known: list[str]) -> str:
    """Return a hint for a name that no image has: the recipe or the known image that the user may have meant."""
    from difflib import get_close_matches

    buildable = ["tiny", *names()]
    if name in buildable:
        return f"`vmctl image build {name}` builds it"
    named = [one for one in known if one and not one.startswith(".")]
    if nearest := get_close_matches(name, [*named, *buildable], n=1, cutoff=0.5):
        return f"did you mean {nearest[0]}? {_LIST}, `vmctl image pull {name}` downloads one"
    return f"`vmctl image pull {name}` downloads it, `vmctl image build -t {name} FOLDER` builds it; {_LIST}"


def path(name: str) -> str:
    """Return the path of a recipe."""
    return os.path.join(_FOLDER, f"{name}.yaml")
