"""Build an image from a build file, step by step.

The result of a step is stored as an image with a hidden name (`.build/...`). These images are the build cache, and the
next step's container is started from them. The name is a hash of everything on which the step depends. A hidden image
has layers but no settings: several build files share it, and a step gets only the settings of its file.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack, suppress

from images.layer import layers, lookup
from images.recipes import copyflags, debian, dockerfile, ignore, lines, runstep, settings
from images.recipes.copystep import Addition
from images.recipes.files import Context, Fetched, Files, Layers, Nothing
from images.recipes.mounting import Mounting
from images.recipes.options import PROXIES, Options, Reporter
from images.recipes.stages import Bases, platform
from images.recipes.state import State
from images.recipes.steps import SCRATCH, Arg, BuildFile, Copy, Instruction, Label, Packages, Run, Workdir
from images.recipes.variables import Variables
from images.store import store
from images.store.image import Image, Layer, architecture
from images.store.staging import Stage as Folder
from images.store.staging import staging
from vmctl.errors import NotFoundError, SpecError, VmctlError
from vmctl.linux import views

HIDDEN = ".build/"
_VERSION = 2  # version of the steps' implementation; part of every key
_NANO = 10**9


def build(build_file: BuildFile, options: Options, reporter: Reporter, runner: runstep.Runner) -> Image:
    """Build an image, store it under its name and return it. After a failure, only completed steps remain, as cache.

    Raises SpecError, and the errors of the steps, the runner and the store.
    """
    for warning in build_file.warnings:
        reporter.warn(warning)
    runner.remove_abandoned()
    with staging() as folder:
        return _Build(folder, build_file, options, reporter, runner).image()


class _Build:
    """One build."""

    def __init__(
        self, folder: Folder, build_file: BuildFile, options: Options, reporter: Reporter, runner: runstep.Runner
    ) -> None:
        self._folder, self._build_file, self._options, self._reporter = folder, build_file, options, reporter
        self._runner = runner
        self._variables = Variables(build_file.escape, quotes=build_file.quotes)
        self._bases = Bases(build_file, options.arguments, self._variables)
        self._states: dict[int, State] = {}
        self._declared = set(build_file.arguments)
        self._number = self._total = 0

    def image(self) -> Image:
        target = self._bases.target(self._options.target)
        needed = self._bases.needed(target)
        self._total = sum(1 + len(self._build_file.stages[index].steps) for index in needed)
        for index in needed:
            self._states[index] = self._stage(index)
        for name in sorted(set(self._options.arguments) - self._declared - PROXIES):
            self._reporter.warn(f"--build-arg {name}: {self._build_file.path} has no ARG {name}")
        state = self._states[target]
        if self._options.labels:
            state.apply(Label(tuple(self._options.labels.items())))
        return store.add(self._folder, self._options.name, state.layers, state.document())

    def _stage(self, index: int) -> State:
        stage = self._build_file.stages[index]
        self._begin(stage.text)
        try:
            state = self._base(index)
        except VmctlError as error:
            raise _located(error, stage.where) from error
        triggers = state.settings.pop("OnBuild", None) or []
        steps = [*dockerfile.triggered(triggers, f"ONBUILD of {stage.base}"), *stage.steps]
        self._total += len(triggers)
        for step in steps:
            self._begin(step.text)
            try:
                self._reporter.done(self._step(state, step, index))
            except ValueError as error:
                hint = lines.comment_hint(step.text)
                raise SpecError(f"{step.where}: {_short(step.text)}: {error}", hint=hint) from None
            except VmctlError as error:
                raise self._failed(error, step) from error
        return state

    def _begin(self, text: str) -> None:
        self._number += 1
        self._reporter.step(self._number, self._total, _short(text))

    def _failed(self, error: VmctlError, step: Instruction) -> VmctlError:
        """Return the error with the step in which it was raised."""
        text = f"{step.where}: step {self._number} of {self._total} failed: {_short(step.text)}: {error}"
        return VmctlError(text, hint=error.hint, detail=error.detail)

    def _base(self, index: int) -> State:
        base = self._bases.bases[index]
        if isinstance(base, Packages):
            return self._packages(base)
        if base == SCRATCH:
            self._reporter.done("")
            return State(epoch_s=self._options.epoch_s)
        before = None if base.isdigit() else self._bases.stage(base, index)
        if before is not None:
            self._reporter.done("")
            return self._states[before].copied()
        image = store.find(base)
        if image.disk:
            raise SpecError(
                f"the image {base} is a disk, on which no image can be built", hint="`vmctl image import --as-layer`"
            )
        if image.architecture != architecture():
            raise SpecError(f"the image {base} is for {image.architecture}, but images are built for {architecture()}")
        for key in store.only_stored(store.document(image).get("config") or {}):
            self._reporter.warn(f"{base}: its {key} has no effect in vmctl: it is only stored")
        self._reporter.done("")
        return State(layers.held(self._folder, image), store.document(image), epoch_s=self._options.epoch_s)

    def _packages(self, base: Packages) -> State:
        key = _key(["base", self._options.epoch_s, *debian.key(base)])
        if (cached := self._cached(key)) is not None:
            self._reporter.done("CACHED")
            state = State(layers.held(self._folder, cached), store.document(cached))
        else:
            built = debian.build(self._folder, base, self._options.epoch_s, self._reporter.progress)
            state = State(epoch_s=built.epoch_s)
            state.note(f"packages of {base.suite}: {' '.join((base.variant, *base.include))}", layer=built.layer)
            self._keep(state, key)
            self._reporter.done(_size(built.layer))
        state.name = HIDDEN + key
        return state

    def _cached(self, key: str) -> Image | None:
        if not self._options.cache:
            return None
        try:
            return store.find(HIDDEN + key)
        except NotFoundError:
            return None

    def _keep(self, state: State, key: str) -> None:
        """Store the current layers under a hidden name."""
        state.name = HIDDEN + key
        with suppress(NotFoundError):
            if [layer.digest for layer in store.find(state.name).layers] == [layer.digest for layer in state.layers]:
                return
        image = store.add(self._folder, state.name, state.layers, {**state.document(), "config": {}})
        state.layers = tuple(layers.held(self._folder, image))

    def _step(self, state: State, step: Instruction, index: int) -> str:
        """Execute a step and return its outcome for the reporter."""
        action = self._variables.action(step.action, state.lookup)
        match action:
            case Arg():
                self._declare(state, action)
            case Run():
                return self._run(state, action, step.text, index)
            case Copy():
                return self._copy(state, action, step.text, index)
            case Workdir():
                return self._workdir(state, action, step.text)
            case _:
                state.apply(action)
        state.note(step.text)
        return ""

    def _declare(self, state: State, action: Arg) -> None:
        given = {**platform(), **self._options.arguments}
        for name, default in action.defaults:
            self._declared.add(name)
            if name in given:
                value: str | None = given[name]
            elif default is not None:
                value = self._variables.text(default, state.lookup)
            else:
                value = self._bases.arguments.get(name)
            if value is not None:
                state.arguments[name] = value

    def _run(self, state: State, action: Run, text: str, index: int) -> str:
        if not state.layers:
            raise SpecError("RUN needs a program, but the image is empty", hint="COPY a program into the image first")
        variables = {"SOURCE_DATE_EPOCH": str(state.epoch_s), **state.arguments, **settings.environment(state.settings)}
        command = runstep.Command(
            tuple(settings.argv_of(action.command, state.settings)),
            variables,
            state.settings.get("WorkingDir") or "/",
            state.settings.get("User") or "",
            action.network or self._options.network,
        )
        below = [layer.key for layer in state.layers]
        mounting = Mounting(action.mounts, command.workdir, self._options.secrets)
        with mounting:
            mounting.read(lambda origin, stack: self._origin(state, origin, index, stack), state.epoch_s)
            key = _key(["run", _VERSION, below, *command, state.epoch_s, *mounting.key()])
            return self._run_once(
                state, key, command._replace(env={**self._options.proxies, **variables}), mounting, text
            )

    def _run_once(self, state: State, key: str, command: runstep.Command, mounting: Mounting, text: str) -> str:
        """Run a command, unless its result is in the cache."""
        with self._runner.alone(runstep.name_of(key)):
            if (cached := self._cached(key)) is not None:
                return self._take_cached(state, cached, text, key)
            if not state.name:
                self._keep(state, _layers_key(state))
            layer = runstep.run(
                self._runner,
                self._folder,
                state.name,
                command,
                mounting.make(self._folder),
                runstep.name_of(key),
                state.epoch_s * _NANO,
                self._reporter.output,
            )
            state.note(text, layer=layer)
            self._keep(state, key)
        return _size(layer)

    def _take_cached(self, state: State, cached: Image, text: str, key: str) -> str:
        held = layers.held(self._folder, cached)
        state.note(text, layer=held[-1] if len(held) > len(state.layers) else None)
        state.name = HIDDEN + key
        return "CACHED"

    def _copy(self, state: State, action: Copy, text: str, index: int) -> str:
        urls = [source for source in action.sources if action.extract and copyflags.is_url(source)]
        files = tuple(source for source in action.sources if source not in urls)
        with ExitStack() as stack:
            origin = self._origin(state, action.origin, index, stack)
            fetched = [self._fetch(url, action.checksum) for url in urls]
            with Addition(state.layers, state.epoch_s) as addition:
                addition.copy(action._replace(sources=files), origin, state.settings.get("WorkingDir", ""), fetched)
                return self._add(state, addition, text)

    def _fetch(self, url: str, checksum: str) -> Fetched:
        from images.recipes import remote  # it takes long to import

        self._reporter.progress(f"downloading {url}")
        return remote.fetch(self._folder, url, checksum, self._options.network, self._options.proxies)

    def _origin(self, state: State, origin: str, index: int, stack: ExitStack) -> Files:
        """Return the files of a stage or an image, of the context if `origin` is empty."""
        if not origin:
            if not (folder := self._options.context):
                return Nothing()
            view = stack.enter_context(views.without_links(folder))
            return Context(folder, ignore.read(folder, self._build_file.path), view)
        before = self._bases.stage(origin, index)
        if before is not None:
            other = self._states[before]
            state.epoch_s = max(state.epoch_s, other.epoch_s) if self._options.epoch_s is None else state.epoch_s
            found, what = list(other.layers), f"the stage {origin}"
        else:
            found, what = layers.held(self._folder, store.find(origin)), f"the image {origin}"
        return Layers(stack.enter_context(lookup.View(found)), what)

    def _workdir(self, state: State, action: Workdir, text: str) -> str:
        state.apply(action)
        with Addition(state.layers, state.epoch_s) as addition:
            path = state.settings["WorkingDir"]
            if addition.has_folder(path):
                state.note(text)
                return ""
            addition.folder(path, state.settings.get("User") or "")
            return self._add(state, addition, text)

    def _add(self, state: State, addition: Addition, text: str) -> str:
        """Add a layer of files; a layer that the store already has is reused."""
        digest = addition.digest()
        layer = layers.known(self._folder, digest, state.layers) if self._options.cache else None
        how = "CACHED"
        if layer is None:
            layer = addition.layer(self._folder, digest)
            how = _size(layer)
        state.note(text, layer=layer)
        self._keep(state, _layers_key(state))
        return how


def _layers_key(state: State) -> str:
    return _key(["layers", _VERSION, [layer.key for layer in state.layers]])


def _key(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _size(layer: Layer | None) -> str:
    from vmctl.spec.units import format_size

    return "nothing changed" if layer is None else format_size(layer.size_bytes)


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."


def _located(error: VmctlError, where: str) -> VmctlError:
    """Return the same error, with its place in the file."""
    located = VmctlError(f"{where}: {error}", hint=error.hint, detail=error.detail)
    located.exit_code = error.exit_code
    return located
