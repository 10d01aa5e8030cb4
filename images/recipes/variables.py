"""A step with its variables filled in, by Docker's rules: which texts have variables, which keep their dollars."""

from __future__ import annotations

from collections.abc import Callable

from images.recipes import copyflags
from images.recipes.expand import Lookup, expand, expand_keeping_quotes
from images.recipes.steps import Action, Copy, Env, Expose, Label, Run, RunMount, StopSignal, User, Volume, Workdir


class Variables:
    """The rules of one build file: the escape character, and whether quotes have a meaning."""

    def __init__(self, escape: str, *, quotes: bool) -> None:
        self._escape = escape
        self._expand = expand if quotes else expand_keeping_quotes

    def text(self, text: str, lookup: Lookup) -> str:
        """Return a text with its variables filled in. Raises ValueError."""
        return self._expand(text, lookup, self._escape)

    def action(self, action: Action, lookup: Lookup) -> Action:
        """Return a step with its variables filled in. Raises ValueError.

        Commands are left alone: their variables are the shell's. Only the mounts of RUN have some.
        """

        def fill(text: str) -> str:
            return self._expand(text, lookup, self._escape)

        match action:
            case Env(pairs) | Label(pairs):
                return type(action)(tuple((fill(name), fill(value)) for name, value in pairs))
            case Workdir(path):
                return Workdir(_not_empty(fill(path), "the path"))
            case User(user):
                return User(_not_empty(fill(user), "the user"))
            case StopSignal(signal):
                return StopSignal(_not_empty(fill(signal), "the signal"))
            case Expose(ports):
                return Expose(tuple(port for text in ports for port in fill(text).split()))
            case Volume(paths):
                return Volume(tuple(_not_empty(fill(path), "the path") for path in paths))
            case Copy():
                return self._copy(action, lookup)
            case Run():
                return action._replace(mounts=tuple(_filled(mount, fill) for mount in action.mounts))
        return action

    def _copy(self, copy: Copy, lookup: Lookup) -> Copy:
        def fill(text: str) -> str:
            return self._expand(text, lookup, self._escape)

        inline = (
            part._replace(content=expand_keeping_quotes(part.content, lookup, self._escape)) if part.expand else part
            for part in copy.inline
        )
        sources = tuple(_not_empty(fill(source), "the source") for source in copy.sources)
        checksum = fill(copy.checksum)
        if copy.extract:
            copyflags.check_sources(sources, checksum)
        if mode := fill(copy.mode):
            copyflags.check_mode(mode)
        return copy._replace(
            checksum=checksum,
            sources=sources,
            target=_not_empty(fill(copy.target), "the target"),
            owner=fill(copy.owner),
            mode=mode,
            exclude=tuple(map(fill, copy.exclude)),
            inline=tuple(inline),
        )


def _filled(mount: RunMount, fill: Callable[[str], str]) -> RunMount:
    return mount._replace(
        target=_not_empty(fill(mount.target), "the target"), source=fill(mount.source), id=fill(mount.id)
    )


def _not_empty(text: str, what: str) -> str:
    if not text:
        raise ValueError(f"{what} is empty")
    return text
