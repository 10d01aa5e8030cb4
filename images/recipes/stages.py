"""Which stages a build needs, and in which order."""

from __future__ import annotations

from collections.abc import Mapping

from images.recipes.steps import SCRATCH, BuildFile, Copy, Packages, Run, Stage
from images.recipes.variables import Variables
from images.store.image import architecture
from vmctl.errors import SpecError


class Bases:
    """A build file's stages with the variables of their FROM lines filled in. Raises SpecError."""

    def __init__(self, build_file: BuildFile, given: Mapping[str, str], variables: Variables) -> None:
        self._build_file = build_file
        self.arguments = _arguments(build_file, given, variables)
        self.bases = [self._base(stage, variables) for stage in build_file.stages]

    def _base(self, stage: Stage, variables: Variables) -> str | Packages:
        if isinstance(stage.base, Packages):
            return stage.base
        try:
            base = variables.text(stage.base, self.arguments.get)
        except ValueError as error:
            raise SpecError(f"{stage.where}: FROM: {error}") from None
        if not base:
            raise SpecError(f"{stage.where}: {stage.base} is empty", hint="--build-arg sets such a variable")
        return base

    def stage(self, name: str, before: int) -> int | None:
        """Return the index of the stage of that name or number that comes before another one, None for an image."""
        for index, stage in enumerate(self._build_file.stages[:before]):
            if name.lower() == stage.name or name == str(index):
                return index
        return None

    def target(self, name: str) -> int:
        """Return the index of the stage to build; without a name it is the last one. Raises SpecError."""
        stages = self._build_file.stages
        if not name:
            return len(stages) - 1
        index = self.stage(name, len(stages))
        if index is None:
            known = ", ".join(stage.name for stage in stages if stage.name) or "none has a name"
            raise SpecError(f"{self._build_file.path} has no stage {name}", hint=f"stages: {known}")
        return index

    def needed(self, target: int) -> list[int]:
        """Return the indexes of all stages that a stage needs, and its own, in order."""
        found: set[int] = set()
        waiting = [target]
        while waiting:
            index = waiting.pop()
            if index not in found:
                found.add(index)
                waiting.extend(self._uses(index))
        return sorted(found)

    def _uses(self, index: int) -> list[int]:
        actions = [step.action for step in self._build_file.stages[index].steps]
        origins = [action.origin for action in actions if isinstance(action, Copy)]
        origins += [mount.origin for action in actions if isinstance(action, Run) for mount in action.mounts]
        base = self.bases[index]
        if isinstance(base, str) and base != SCRATCH and not base.isdigit():
            origins.append(base)
        return [used for origin in filter(None, origins) if (used := self.stage(origin, index)) is not None]


def _arguments(build_file: BuildFile, given: Mapping[str, str], variables: Variables) -> dict[str, str]:
    """Return the variables that FROM lines know: those declared before them, and what the platform is."""
    known = platform()
    for name, default in build_file.arguments.items():
        value = given.get(name, default)
        if value is not None:
            try:
                known[name] = value if name in given else variables.text(value, known.get)
            except ValueError as error:
                raise SpecError(f"{build_file.path}: ARG {name}: {error}") from None
    return known


def platform() -> dict[str, str]:
    """Return the variables of the target and the build platform: both are this machine."""
    parts = {"PLATFORM": f"linux/{architecture()}", "OS": "linux", "ARCH": architecture(), "VARIANT": ""}
    return {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in parts.items()}
