"""`vmctl up` of a stack: what it asks for, and what it prints."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from vmctl import backends, fromflags, phases
from vmctl.cli import modes, output, startshow
from vmctl.errors import NotFoundError, SpecError
from vmctl.spec.units import format_seconds
from vmctl.stacks import bringing, graph, loading, running, workers
from vmctl.stacks.changes import Change
from vmctl.stacks.stack import Build, Service, Source, Stack

SHOW_PERIOD_S = 0.1
WIDE = 60  # columns of a terminal on which each phase of each service gets a line


def loaded(args: Namespace, paths: Sequence[str], contents: Mapping[str, bytes]) -> Stack:
    """Return the stack of the files. Raises SpecError."""
    source = Source(tuple(paths), tuple(args.env_file), tuple(args.profile), args.name or "", dict(os.environ))
    return loading.load(source, contents)


def up(args: Namespace, stack: Stack, services: Sequence[str]) -> int:
    """Bring the stack up and return the exit code. Raises the error of the first service that failed."""
    if getattr(args, "script", None):
        raise SpecError("--script: a stack has several workloads, and a script starts one", hint="name a workload file")
    request = running.Request(
        mode=args.mode or "",
        default_mode=fromflags.MODE,
        options=modes.chosen(args),
        services=tuple(services),
        mode_of=_by_service(args.mode_of, "--mode-of"),
        scale={name: _count(text) for name, text in _by_service(args.scale, "--scale").items()},
        wait=args.wait,
        keep=args.keep,
        replace=args.force_recreate,
        remove_orphans=args.remove_orphans,
        dry=args.dry_run,
    )
    if args.explain or args.dry_run:
        _explain(stack, request)
    report = Report(quiet=args.quiet, dry=args.dry_run, verbose=getattr(args, "verbose", False))
    try:
        failures = running.up(stack, request, StoredImages(stack.name, build=args.build, quiet=args.quiet), report)
    finally:
        report.end()
    for failure in failures[1:]:
        output.note(f"also: {failure.error}")
    if failures:
        error = failures[0].error
        error.hint = error.hint or ("" if args.keep else "with --keep what was started stays")
        raise error
    return 0


def pull(args: Namespace, stack: Stack, services: Sequence[str]) -> None:
    """Download the images of the services whose policy asks for it: before the namespaces of an ordinary user."""
    from images.store import store
    from images.transfer import pulling
    from images.transfer.registry import Access

    for service in graph.selected(stack, services).values():
        policy = args.pull or service.pull
        if service.build or policy not in ("missing", "always"):
            continue
        if policy == "missing":
            with suppress(NotFoundError):
                store.find(service.work.image)
                continue
        progress = output.Progress(quiet=args.quiet)
        try:
            pulling.pull(service.work.image, Access(None, ""), progress)
        finally:
            progress.clear()


def _explain(stack: Stack, request: running.Request) -> None:
    """Print every step of the start of each service."""
    from vmctl.cli import explained

    for name, service in graph.selected(stack, request.services).items():
        mode = running.mode_of(service, stack, request)
        print(f"{name}:")
        explained.show(service.work, backends.load(mode, backends.suited(mode, request.options)))


def _by_service(texts: Sequence[str], flag: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise SpecError(f"{flag}: expected SERVICE=VALUE, got {text}")
        found[name] = value
    return found


def _count(text: str) -> int:
    from vmctl.stacks.service import MOST_INSTANCES

    if not (text.isascii() and text.isdigit()) or int(text[:9]) > MOST_INSTANCES:
        raise SpecError(f"--scale: expected a number from 0 to {MOST_INSTANCES}, got {text[:40]}")
    return int(text)


class StoredImages:
    """Builds images, and reads the image store: see `running.Images`."""

    def __init__(self, stack: str, *, build: bool, quiet: bool) -> None:
        self.stack, self.build, self.quiet = stack, build, quiet
        self.done: set[str] = set()

    def provide(self, service: Service) -> None:
        """See `running.Images`."""
        if service.build is None or service.work.image in self.done:
            return
        if self.build or service.pull == "build" or self.digest(service.work.image) is None:
            _build(service.build, service.work.image, quiet=self.quiet)
        self.done.add(service.work.image)

    def digest(self, name: str) -> str | None:
        """See `running.Images`."""
        from images.store import store

        try:
            return store.find(name).digest
        except NotFoundError:
            return None


def _build(build: Build, image: str, *, quiet: bool) -> None:
    """Build an image as `vmctl image build` does."""
    from vmctl.cli import parse
    from vmctl.cli.image.build import build_image

    words = ["build", "--tag", image, *(["--quiet"] if quiet else [])]
    if build.dockerfile:
        words += ["--file", os.path.join(build.context, build.dockerfile)]
    for name, text in build.arguments.items():
        words += ["--build-arg", f"{name}={text}"]
    words += ["--target", build.target] if build.target else []
    words += ["--network", build.network] if build.network else []
    words += [] if build.cache else ["--no-cache"]
    if not os.path.isdir(build.context):
        raise build.place.error(f"the folder {build.context} does not exist")
    build_image(parse("image", [*words, build.context])[1])


class Report:
    """Prints names to standard output and everything else to standard error: see `running.Reporter`."""

    def __init__(self, *, quiet: bool, dry: bool = False, verbose: bool = False) -> None:
        self.quiet, self.dry = quiet, dry
        wide = verbose or startshow.columns() >= WIDE
        self.lines = wide and startshow.in_lines(verbose=verbose, quiet=quiet)
        self.progress = output.Progress(quiet=quiet or (self.lines and not sys.stderr.isatty()))
        self.phases: dict[str, str] = {}
        self.changes: dict[str, Change] = {}
        self.next_s = 0.0

    def warn(self, text: str) -> None:
        """See `running.Reporter`."""
        self._note(f"warning: {text}")

    def change(self, change: Change) -> None:
        """See `running.Reporter`."""
        self.changes[change.name] = change
        if self.dry:
            print(f"{change.name}: {change.text()}")
        elif change.kind in ("replace", "remove") and not self.quiet:
            self._note(f"{change.name}: {change.text()}")

    def event(self, name: str, event: str, values: Mapping[str, Any]) -> None:
        """See `running.Reporter`."""
        for phase, took_s in values.get("ended", ()) if self.lines else ():
            width = max(map(len, self.changes))
            self._note(startshow.line(phases.PHASES[phase], took_s, f"{name:<{width}}"))
        if event == bringing.PHASE:
            self.phases[name] = values["text"]
            self._show()
            return
        self.phases.pop(name, None)
        if event == bringing.READY:
            self._ready(name, values)
        elif event == workers.LEFT and not self.quiet:
            self._note(f"{name}: not started, because of what it waits for")

    def end(self) -> None:
        """Remove the progress."""
        self.progress.clear()

    def _ready(self, name: str, values: Mapping[str, Any]) -> None:
        self.progress.clear()
        print(name)
        sys.stdout.flush()
        for text in values["warnings"]:
            self._note(f"{name}: warning: {text}")
        if self.quiet:
            return
        if self.changes[name].kind == "keep":
            self._note(f"{name} is unchanged")
            return
        how = output.mode(values["mode"], values["accelerator"], values["warm"])
        took = f" after {format_seconds(values['took_s'])}" if values["took_s"] is not None else ""
        places = values["ports"] or [values["address"] or ""]
        self._note(f"{name} is ready in mode {how}{took}" + (f", at {', '.join(places)}" if places[0] else ""))

    def _show(self) -> None:
        if self.progress.due() and time.monotonic() >= self.next_s:
            self.next_s = time.monotonic() + SHOW_PERIOD_S
            self.progress("  ".join(f"{name}: {phase}" for name, phase in self.phases.items()))

    def _note(self, text: str) -> None:
        self.progress.clear()
        output.note(text)
