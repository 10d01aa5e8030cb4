"""A Dockerfile as a build file: its instructions parsed, its mistakes reported with FILE:LINE.

See docs.docker.com/reference/dockerfile.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches

from images.recipes import instructions, lines
from images.recipes.flagwords import flags
from images.recipes.lines import Line
from images.recipes.steps import Action, Arg, BuildFile, Instruction, Stage, Stored
from images.store import platforms
from vmctl.errors import SpecError

NAMES = ("Dockerfile", "Containerfile")
_STAGE_NAME = r"[a-z][a-z0-9_.-]*"


def load(path: str) -> BuildFile:
    """Return the build file of a Dockerfile. Raises SpecError."""
    source = lines.read(path)
    reader = _Reader(path, source.escape)
    for line in source.lines:
        reader.take(line)
    return reader.build_file()


def triggered(texts: list[str], where: str) -> list[Instruction]:
    """Return the instructions that an image's ONBUILD lines are. Raises SpecError."""
    reader = _Reader(where, "\\")
    found = []
    for text in texts:
        for line in lines.parse(text, where).lines:
            if line.word in ("FROM", "ONBUILD", "MAINTAINER"):
                raise SpecError(f"{where}: {line.word} cannot come from ONBUILD")
            found.append(Instruction(reader.action(line), shown(line), where))
    return found


def shown(line: Line) -> str:
    """Return an instruction in one line."""
    return " ".join(f"{line.word} {line.rest}".split())


def _check_platform(text: str) -> None:
    """Raise ValueError if a platform such as linux/arm64 is not that of this machine."""
    try:
        wanted = platforms.parse(text)
    except SpecError as error:
        raise ValueError(f"--platform: {error}") from None
    if not wanted.is_host():
        raise ValueError(f"--platform: images are built for {platforms.parse('')}, not for {text}")


class _Reader:
    """Collects stages line by line."""

    def __init__(self, path: str, escape: str) -> None:
        self._path = path
        self._escape = escape
        self._arguments: dict[str, str | None] = {}
        self._stages: list[Stage] = []
        self._warnings: list[str] = []

    def build_file(self) -> BuildFile:
        if not self._stages:
            raise SpecError(f"{self._path}: no FROM: the base image is missing", hint="FROM tiny, or FROM scratch")
        return BuildFile("", self._path, tuple(self._stages), self._arguments, tuple(self._warnings), self._escape)

    def take(self, line: Line) -> None:
        where = f"{self._path}:{line.number}"
        try:
            if line.word == "FROM":
                self._stages.append(self._from(line, where))
                return
            action = self.action(line)
        except ValueError as error:
            raise SpecError(f"{where}: {line.word}: {error}", hint=lines.comment_hint(line.rest)) from None
        if self._stages:
            stage = self._stages[-1]
            self._stages[-1] = stage._replace(steps=(*stage.steps, Instruction(action, shown(line), where)))
        elif isinstance(action, Arg):
            self._arguments.update(action.defaults)
        else:
            raise SpecError(f"{where}: {line.word} before the first FROM", hint="only ARG may come before FROM")

    def action(self, line: Line) -> Action:
        """Return the action of a line. Raises ValueError with the expected form, SpecError for an unknown one."""
        if line.word not in instructions.READERS:
            near = get_close_matches(line.word, [*instructions.READERS, "FROM"], 1, 0.6)
            raise SpecError(
                f"{self._path}:{line.number}: there is no instruction {line.word[:40]}",
                hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(instructions.READERS)}",
            )
        read: Callable[[Line, str], Action] = instructions.READERS[line.word]
        if not line.rest and line.word not in instructions.MAY_BE_BARE:
            raise ValueError("nothing follows")
        action = read(line, self._escape)
        if isinstance(action, Stored) and action.key in instructions.UNHEEDED:
            self._warnings.append(f"{self._path}:{line.number}: {line.word} {instructions.UNHEEDED[action.key]}")
        return action

    def _from(self, line: Line, where: str) -> Stage:
        found, rest = flags(line.rest, ("platform",))
        platform = found.get("platform", "").strip("\"'")
        if platform and "$" not in platform:
            _check_platform(platform)
        if platform and not re.fullmatch(r"\$\{?(BUILD|TARGET)PLATFORM\}?", platform):  # those are this machine
            self._warnings.append(f"{where}: --platform has no effect: images are built for this machine")
        parts = rest.split()
        if len(parts) not in (1, 3) or (len(parts) == 3 and parts[1].upper() != "AS"):
            raise ValueError(f"expected IMAGE or IMAGE AS NAME, got {rest or 'nothing'}")
        name = parts[2].lower() if len(parts) == 3 else ""
        if name and not re.fullmatch(_STAGE_NAME, name):
            raise ValueError(f"{parts[2]} cannot be the name of a stage")
        if name and any(stage.name == name for stage in self._stages):
            raise ValueError(f"there are two stages {name}")
        return Stage(name, parts[0], (), where, shown(line))
