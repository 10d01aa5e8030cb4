"""The recipes that are part of vmctl: configs/images/NAME.yaml."""

from __future__ import annotations

import os

_FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "images")


def names() -> list[str]:
    """Return the names of the recipes, sorted."""
    try:
        return sorted(name.removesuffix(".yaml") for name in os.listdir(_FOLDER) if name.endswith(".yaml"))
    except FileNotFoundError:
        return []


def path(name: str) -> str:
    """Return the path of a recipe."""
    return os.path.join(_FOLDER, f"{name}.yaml")
