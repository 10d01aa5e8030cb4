"""A recipe: an image described in YAML, as a build file. Every key is checked, as in a workload file."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType, field

from images.recipes import recipekeys, runmounts, steps
from images.recipes.modes import Mode
from images.recipes.steps import BuildFile, Instruction, Stage
from images.store import reference
from vmctl.errors import SpecError
from vmctl.spec import schemadocs, specerrors, yamlfile

Scalar = str | int | float | bool
Words = str | list[str]  # a line for the shell, or a program and its arguments
Variant = Literal["essential", "apt", "required", "minbase", "important", "standard", "custom"]
Network = Literal["bridge", "none", "host"]


class _Keys(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class File(_Keys):
    """A file whose content is in the recipe."""

    path: str
    content: str = ""
    mode: str = ""
    owner: str = ""


class Prepared(_Keys):
    """A file that is there before the packages' scripts run."""

    path: str
    content: str = ""


class Packages(_Keys):
    """See steps.Packages; the variants are those of mmdebstrap(1)."""

    suite: str
    include: list[str] = []
    variant: Variant = "essential"
    components: list[str] = field(default_factory=lambda: ["main"])
    mirrors: list[str] = []
    documentation: bool = False
    exclude: list[str] = []
    files: list[Prepared] = []


class From(_Keys):
    """A base that is not an image."""

    packages: Packages


class Run(_Keys):
    """A command with its settings."""

    command: Words
    network: Network | UnsetType = UNSET
    mounts: list[str] = []


class Copy(_Keys):
    """Files of the recipe's folder, or of an image."""

    source: Words = field(name="from")
    to: str
    image: str = ""
    owner: str = ""
    mode: str = ""
    extract: bool = False


class Step(_Keys):
    """One step: exactly one of the keys is set."""

    run: Words | Run | UnsetType = UNSET
    copy: Copy | UnsetType = UNSET
    file: File | UnsetType = UNSET
    env: dict[str, Scalar] | UnsetType = UNSET
    arg: dict[str, Scalar | None] | UnsetType = UNSET
    workdir: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    shell: list[str] | UnsetType = UNSET


class Recipe(_Keys):
    """The whole file."""

    name: str
    base: str | From = field(name="from")
    steps: list[Step] = []
    entrypoint: Words | UnsetType = UNSET
    command: Words | UnsetType = UNSET
    env: dict[str, Scalar] = {}
    workdir: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    expose: list[str | int] = []
    volumes: list[str] = []
    labels: dict[str, Scalar] = {}
    stop_signal: str | UnsetType = UNSET
    network: Network | UnsetType = UNSET


_HINTS = {
    "user": 'in quotes: "1000:1000"',
    "steps": "a list: each step begins with `- run:`, `- copy:`, ...",
    "steps.copy.mode": 'in quotes: "0644", or "u=rwX,go=rX"',
    "steps.file.mode": 'in quotes: "0644", or "u=rwX,go=rX"',
    "from": "the name of an image, `scratch`, or `packages: {suite: ...}`",
}


def load(path: str, changes: tuple[tuple[str, str], ...] = ()) -> BuildFile:
    """Return the build file of a recipe; `changes` are keys (`from.packages.suite`) and YAML. Raises SpecError."""
    document = yamlfile.read_mapping(path, "recipe", "from: tiny")
    document = {"name": os.path.basename(path).rpartition(".")[0] or os.path.basename(path), **document}
    try:
        for key, text in changes:
            _change(document, key, yamlfile.value(text))
        return _build_file(_convert(document), path)
    except SpecError as error:
        raise SpecError(f"{path}: {error}", hint=error.hint) from None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe."""
    result = msgspec.json.schema(Recipe)
    result["$defs"]["Recipe"]["required"].remove("name")  # the default is the file's name
    schemadocs.describe(result, recipekeys.TEXTS)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vmctl recipe", **result}


def _convert(document: Any) -> Recipe:
    try:
        recipe = msgspec.convert(document, Recipe)
    except msgspec.ValidationError as error:
        raise specerrors.explained(str(error), Recipe, _HINTS, "for instance from: tiny") from None
    _check(recipe)
    return recipe


def _change(document: dict[str, Any], key: str, value: Any) -> None:
    *folders, last = key.split(".")
    place: Any = document
    for folder in folders:
        place = place.setdefault(folder, {})
        if not isinstance(place, dict):
            raise SpecError(f"--set {key}: {folder} is not a mapping")
    place[last] = value


def _check(recipe: Recipe) -> None:
    try:
        reference.of_new_image(recipe.name)
    except SpecError as error:
        raise SpecError(f"the key name: {error}", hint=error.hint) from None
    for index, step in enumerate(recipe.steps):
        given = _given(step)
        if len(given) != 1:
            known = ", ".join(info.encode_name for info in msgspec.structs.fields(Step))
            raise SpecError(f"the key steps[{index}]: expected one of {known}, got {', '.join(given) or 'none'}")
        for key, part in (("copy", step.copy), ("file", step.file)):
            try:
                if part and part.mode:
                    Mode(part.mode)
            except ValueError as error:
                raise SpecError(f"the key steps[{index}].{key}.mode: {error}") from None
        if step.file:
            _check_path(f"steps[{index}].file.path", step.file.path)
    if isinstance(recipe.base, From):
        for index, file in enumerate(recipe.base.packages.files):
            _check_path(f"from.packages.files[{index}].path", file.path)
    environments = [recipe.env, *(step.env for step in recipe.steps if step.env)]
    for name in (name for variables in environments for name in variables):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise SpecError(f"{name!r} cannot be the name of a variable")


def _check_path(key: str, path: str) -> None:
    if not path.startswith("/") or path.endswith("/") or ".." in path.split("/"):
        raise SpecError(f"the key {key}: expected the absolute path of a file, got {path!r}")


def _given(step: Step) -> list[str]:
    return [info.encode_name for info in msgspec.structs.fields(Step) if getattr(step, info.name) is not UNSET]


def _build_file(recipe: Recipe, path: str) -> BuildFile:
    base: str | steps.Packages
    if isinstance(recipe.base, From):
        keys = recipe.base.packages
        base = steps.Packages(
            keys.suite,
            tuple(keys.include),
            keys.variant,
            tuple(keys.components),
            tuple(keys.mirrors),
            keys.documentation,
            tuple(keys.exclude),
            tuple(steps.Inline(file.path, file.content) for file in keys.files),
        )
        text = f"packages of {keys.suite}: {', '.join((keys.variant, *keys.include))}"
    else:
        base, text = recipe.base, f"from {recipe.base}"
    found = [*_environment(recipe, path), *_steps(recipe, path), *_settings(recipe, path)]
    return BuildFile(recipe.name, path, (Stage("", base, tuple(found), f"{path}: from", text),), quotes=False)


def _steps(recipe: Recipe, path: str) -> list[Instruction]:
    found = []
    for index, step in enumerate(recipe.steps):
        [key] = _given(step)
        action = _ACTIONS[key](getattr(step, key), recipe)
        found.append(Instruction(action, _text(key, getattr(step, key)), f"{path}: steps[{index}]"))
    return found


def _environment(recipe: Recipe, path: str) -> list[Instruction]:
    """Return the recipe's own variables, which its steps have, too."""
    if not recipe.env:
        return []
    return [Instruction(_env(recipe.env, recipe), _text("env", recipe.env), f"{path}: env")]


def _settings(recipe: Recipe, path: str) -> list[Instruction]:
    """Return the instructions of the recipe's other keys, which are for the workload only."""
    actions: list[tuple[str, steps.Action]] = []
    for key in ("workdir", "user"):
        if (value := getattr(recipe, key)) is not UNSET:
            actions.append((key, _ACTIONS[key](value, recipe)))
    if recipe.entrypoint is not UNSET:
        actions.append(("entrypoint", steps.Entrypoint(_command(recipe.entrypoint))))
    if recipe.command is not UNSET:
        actions.append(("command", steps.Cmd(_command(recipe.command))))
    if recipe.expose:
        actions.append(("expose", steps.Expose(tuple(map(str, recipe.expose)))))
    if recipe.volumes:
        actions.append(("volumes", steps.Volume(tuple(recipe.volumes))))
    if recipe.labels:
        actions.append(("labels", steps.Label(_pairs(recipe.labels))))
    if recipe.stop_signal is not UNSET:
        actions.append(("stop_signal", steps.StopSignal(recipe.stop_signal)))
    return [Instruction(action, _text(key, getattr(recipe, key)), f"{path}: {key}") for key, action in actions]


def _command(words: Words) -> steps.Command:
    return words if isinstance(words, str) else tuple(words)


def _run(value: Words | Run, recipe: Recipe) -> steps.Action:
    network = value.network if isinstance(value, Run) and value.network else recipe.network
    words, mounts = (value.command, value.mounts) if isinstance(value, Run) else (value, [])
    try:
        return steps.Run(_command(words), network or "", tuple(map(runmounts.read, mounts)))
    except ValueError as error:
        raise SpecError(f"the key steps.run.mounts: {str(error).removeprefix('--mount').lstrip('=: ')}") from None


def _copy(value: Copy, _: Recipe) -> steps.Action:
    sources = (value.source,) if isinstance(value.source, str) else tuple(value.source)
    return steps.Copy(sources, value.to, value.image, value.owner, value.mode, value.extract)


def _file(value: File, _: Recipe) -> steps.Action:
    inline = steps.Inline(os.path.basename(value.path), value.content, expand=False)
    return steps.Copy((), value.path, owner=value.owner, mode=value.mode, inline=(inline,))


def _env(value: dict[str, Scalar], _: Recipe) -> steps.Action:
    return steps.Env(_pairs(value))


def _arg(value: dict[str, Scalar | None], _: Recipe) -> steps.Action:
    return steps.Arg(tuple((name, None if part is None else _scalar(part)) for name, part in value.items()))


def _pairs(value: dict[str, Scalar]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _scalar(part)) for name, part in value.items())


def _scalar(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(key: str, value: Any) -> str:
    """Return a step in one line."""
    if isinstance(value, msgspec.Struct):
        value = {name: part for name, part in msgspec.to_builtins(value).items() if part not in ("", False)}
    if isinstance(value, dict):
        value = ", ".join(f"{name}: {part}" for name, part in value.items())
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return " ".join(f"{key} {value}".split())


_ACTIONS: dict[str, Any] = {
    "run": _run,
    "copy": _copy,
    "file": _file,
    "env": _env,
    "arg": _arg,
    "workdir": lambda value, _: steps.Workdir(value),
    "user": lambda value, _: steps.User(value),
    "shell": lambda value, _: steps.Shell(tuple(value)),
}
