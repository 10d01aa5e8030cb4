"""vmctl up."""

from __future__ import annotations

import argparse

from vmctl import engine, registry, spec
from vmctl.cli import modes, output
from vmctl.instance import Instance
from vmctl.units import format_seconds
from vmctl.workload import Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="workload file")
    modes.add(parser)
    parser.add_argument("--name", help="name of the instance (default: the workload's)")
    parser.add_argument("--no-wait", action="store_true", help="return when it has started, not when it is ready")
    parser.add_argument("--explain", action="store_true", help="show every host step, with its raw equivalent and why")
    parser.add_argument("--dry-run", action="store_true", help="with --explain: stop there")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the name only")


def run(args: argparse.Namespace) -> int:
    """Start the workload."""
    modes.apply(args)
    work = spec.load(args.spec, name=args.name)
    if args.explain or args.dry_run:
        explain(work, args.mode)
    if args.dry_run:
        engine.check(work, registry.load(args.mode))
        return 0
    progress = output.Progress()

    def show(_: Instance, phase: str) -> None:
        progress(f"{work.name}: {phase}")

    try:
        inst = engine.up(work, args.mode, wait=not args.no_wait, progress=show)
    finally:
        progress.clear()
    print(inst.name)
    for warning in inst.warnings:
        output.note(f"warning: {warning}")
    if not args.quiet:
        output.note(_summary(inst))
    return 0


def explain(work: Workload, mode: str) -> None:
    """Print every step of a start."""
    for number, step in enumerate(registry.load(mode).explain(work), 1):
        print(f"{number:3}. {step.what}{f': {step.why}' if step.why else ''}")
        for line in step.raw.splitlines():
            print(f"       {line}")


def _summary(inst: Instance) -> str:
    """Say how it runs, how long it took and where it answers."""
    how = f"{inst.state.mode} ({inst.state.accelerator})" if inst.state.accelerator else inst.state.mode
    line = inst.timeline
    took = line.between_s("T0", "T6")
    what = "ready" if took is not None else "started"
    took = took if took is not None else line.between_s("T0", "T1")
    text = f"{inst.name} is {what} in mode {how}" + (f" after {format_seconds(took)}" if took is not None else "")
    places = [f"{port.address}:{port.host_port}" for port in inst.work.ports] or [inst.state.address or ""]
    return text + (f", at {', '.join(places)}" if places[0] else "")
