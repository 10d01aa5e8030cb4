"""What the sources of COPY and ADD name: patterns, --parents and --exclude.

See docs.docker.com/reference/dockerfile, sections COPY --parents and COPY --exclude.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from images.layer.lookup import Node
from images.recipes import ignore
from images.recipes.files import Files, Nothing, joined, resolve
from images.recipes.ignore import NAME, Ignore, translate
from vmctl.errors import SpecError

_PIVOT = "/./"


class Source(NamedTuple):
    """One thing to copy: where it is, links resolved, and the name it was asked for by."""

    path: str
    name: str  # --parents: its path below the place at which the folders that are kept begin; "": that place
    node: Node
    base: str = ""  # --parents: that place


class Rest:
    """A tree of files without what --exclude names. It is Files itself.

    Patterns are those of .dockerignore, relative to `base`, a folder of the tree, which has the path `shown` for them.
    """

    def __init__(self, origin: Files, left_out: Ignore, base: str, shown: str = "") -> None:
        self.what = origin.what
        self.has_outside = origin.has_outside
        self.names, self.content, self.inside = origin.names, origin.content, origin.inside
        self._origin = origin
        self._left_out = left_out
        self._base = f"{base}/" if base else ""
        self._shown = shown

    def node(self, path: str) -> Node | None:
        """See Files."""
        node = self._origin.node(path)
        if node is None or not path.startswith(self._base):
            return node
        if not self._left_out(joined(self._shown, path.removeprefix(self._base))):
            return node
        return node if stat.S_ISDIR(node.attributes.mode) and self._keeps_below(path) else None

    def _keeps_below(self, path: str) -> bool:
        if not self._left_out.may_keep_below:
            return False
        return any(self.node(joined(path, name)) is not None for name in self.names(path))


def excluded(patterns: Sequence[str]) -> Ignore:
    """Return the patterns of --exclude. Raises SpecError."""
    return ignore.parse("\n".join(patterns), "--exclude")


def find(tree: Files, pattern: str, *, parents: bool = False) -> list[Source]:
    """Return what a source of COPY names; it may have *, ? and [...] in it. Raises SpecError for nothing.

    `parents`: the folders above are kept, those behind `/./` if the pattern has that; `**` is any number of folders.
    """
    above, pivot, below = pattern.partition(_PIVOT) if parents else ("", "", pattern)
    head, tail = (_parts(above), _parts(below)) if pivot or not parents else ([], _parts(pattern))
    if _climbs(head) or _climbs(tail):
        what = tree.what if not pivot or _climbs(head) else above
        raise SpecError(f"the source {pattern} leads out of {what}", hint="copy the file into it")
    sources = []
    for base in _matches(tree, "", head):
        for path in _matches(tree, base, _without_dots(tail) if parents else tail, deep=parents):
            resolved = resolve(tree, path)
            node = tree.node(resolved) if resolved is not None else None
            if node is not None and resolved is not None:
                name = path.removeprefix(base).lstrip("/") if parents else os.path.basename(path)
                sources.append(Source(resolved, name, node, base))
    if not sources:
        hint = "`vmctl image build -f - FOLDER`" if isinstance(tree, Nothing) else _hint(tree, pattern)
        raise SpecError(f"nothing in {tree.what} is {pattern}", hint=hint)
    return sources


def _parts(pattern: str) -> list[str]:
    return [part for part in pattern.split("/") if part not in ("", ".")]


def _climbs(parts: list[str]) -> bool:
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _without_dots(parts: list[str]) -> list[str]:
    """Return a pattern that does not climb without its `..`: what is kept of it has to be a path below the target."""
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept.pop()
        else:
            kept.append(part)
    return kept


def _hint(tree: Files, pattern: str) -> str:
    from difflib import get_close_matches

    folder, _, name = pattern.rstrip("/").rpartition("/")
    resolved = resolve(tree, folder)
    node = tree.node(resolved) if resolved is not None else None
    if resolved is None or node is None or not stat.S_ISDIR(node.attributes.mode):
        return ""
    names = tree.names(resolved)
    if name in names:
        return f"{NAME} leaves it out"
    near = get_close_matches(name, [one for one in names if tree.node(joined(resolved, one))], 1, 0.5)
    return f"did you mean {joined(folder, near[0])}?" if near else ""


def _matches(tree: Files, start: str, parts: list[str], *, deep: bool = False) -> Iterable[str]:
    """Return the paths that a pattern leads to. A path is followed once: `*/../*/..` can lead to it very often."""
    bases = dict.fromkeys([start])
    for part in parts:
        if part == "..":
            bases = dict.fromkeys(map(os.path.dirname, bases))
        elif deep and part == "**":
            bases = dict.fromkeys(path for base in bases for path in _below(tree, base))
        elif not re.search(r"[*?\[\\]", part):
            bases = dict.fromkeys(joined(base, part) for base in bases)
        else:
            bases = dict.fromkeys(path for base in bases for path in _matching(tree, base, part))
    return bases


def _folder(tree: Files, path: str) -> str | None:
    """Return the path of the folder that a path leads to, links followed; None if it leads to none."""
    folder = resolve(tree, path)
    node = tree.node(folder) if folder is not None else None
    return folder if node is not None and stat.S_ISDIR(node.attributes.mode) else None


def _matching(tree: Files, base: str, part: str) -> Iterator[str]:
    """Yield the paths of what is in a folder and has a name that matches."""
    if (folder := _folder(tree, base)) is None:
        return
    try:
        fits = re.compile(translate(part), re.DOTALL).fullmatch
    except (ValueError, re.error):
        raise SpecError(f"{part} is not a valid pattern") from None
    for name in tree.names(folder):
        if fits(name) and tree.node(joined(folder, name)) is not None:
            yield joined(base, name)


def _below(tree: Files, base: str) -> Iterator[str]:
    """Yield a folder and all folders below it. Links are not followed: they could lead round in circles."""
    if (top := _folder(tree, base)) is None:
        return
    waiting = [(base, top)]
    while waiting:
        shown, folder = waiting.pop()
        yield shown
        for name in reversed(tree.names(folder)):
            node = tree.node(joined(folder, name))
            if node is not None and stat.S_ISDIR(node.attributes.mode):
                waiting.append((joined(shown, name), joined(folder, name)))
