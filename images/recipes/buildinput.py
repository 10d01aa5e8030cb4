"""The argument of `image build`: a recipe, a Dockerfile, a folder with one, or the name of a shipped recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from images.recipes import dockerfile, recipe
from images.recipes.lines import STDIN
from images.recipes.steps import BuildFile
from images.store import shipped
from vmctl.errors import SpecError

_RECIPES = (".yaml", ".yml")
TINY = "tiny"  # made by images/recipes/tiny.py


class Input(NamedTuple):
    """What to build."""

    build_file: BuildFile
    context: str  # the folder that COPY reads; empty: none
    name: str  # of the image, unless --tag gives another one; can be empty


def find(what: str, file: str = "", changes: Sequence[tuple[str, str]] = ()) -> Input:
    """Return what to build. `file` is a build file for the folder `what`; `-` is standard input. Raises SpecError."""
    if what == STDIN:
        return _from_stdin(file)
    path = file or what
    context = what
    if not file and what in shipped.names() and "/" not in what:
        path = shipped.path(what)
        context = os.path.dirname(path)
    elif not file and os.path.isdir(what):
        path = _in_folder(what)
    elif not file:
        if not os.path.exists(what):
            raise SpecError(f"there is no recipe, Dockerfile or folder {what}", hint=_known(what))
        context = os.path.dirname(what) or "."
    if not os.path.isdir(context):
        raise SpecError(f"the context {context} is not a folder")
    if path.endswith(_RECIPES):
        build_file = recipe.load(path, tuple(changes))
        return Input(build_file, context, build_file.name)
    if changes:
        raise SpecError(f"--set changes keys of a recipe, and {path} is a Dockerfile", hint="use --build-arg")
    return Input(dockerfile.load(path), context, _name(context))


def _from_stdin(file: str) -> Input:
    if file not in ("", STDIN):
        raise SpecError("a context on standard input is not supported", hint="unpack it, and name the folder")
    return Input(dockerfile.load(STDIN), "", "")


def _in_folder(folder: str) -> str:
    for name in dockerfile.NAMES:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    raise SpecError(f"{folder} has no {' or '.join(dockerfile.NAMES)}", hint="-f names another file")


def _name(context: str) -> str:
    """Return the name of an image without --tag: the folder's."""
    return os.path.basename(os.path.abspath(context)).lower()


def _known(what: str) -> str:
    from difflib import get_close_matches

    names = [TINY, *shipped.names()]
    if near := get_close_matches(what, names, 1, 0.6):
        return f"did you mean {near[0]}?"
    return f"shipped recipes: {', '.join(names)}"
