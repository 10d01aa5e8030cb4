"""vmctl spec."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from vmctl import backends, engine
from vmctl.backend import Problem
from vmctl.cli import sentence
from vmctl.errors import EXIT_VMCTL, SpecError, VmctlError
from vmctl.spec import textfile, workloadfile
from vmctl.spec.workload import Workload
from vmctl.stacks import yamltree

EXAMPLE = "vmctl spec check web.yaml --mode all"
_CHECK, _SCHEMA = "validate workload files and stacks", "print the JSON Schema, for editors"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|schema")
    check = actions.add_parser("check", help=_CHECK, description=sentence(_CHECK))
    check.example = EXAMPLE  # type: ignore[attr-defined]
    check.add_argument("files", metavar="SPEC", nargs="+", help="workload file, or stack")
    check.add_argument(
        "--mode",
        metavar="MODE",
        help="also check what this mode, or each mode (all), does not support here; nothing is started",
    )
    schema = actions.add_parser("schema", help=_SCHEMA, description=sentence(_SCHEMA))
    schema.example = "vmctl spec schema recipe"  # type: ignore[attr-defined]
    schema.add_argument(
        "of",
        metavar="KIND",
        nargs="?",
        choices=("workload", "recipe"),
        default="workload",
        help="workload or recipe: kind of file (default: workload)",
    )


def run(args: argparse.Namespace) -> int:
    """Check files or print the schema."""
    if args.action == "schema":
        print(json.dumps(_schema(args.of), indent=2))
        return 0
    fine = True
    for path in args.files:
        for work in _works(path):
            print(f"{path}: {work.name}, image {work.image}, {work.digest()}")
            for mode in _modes(args.mode):
                found = _problems(work, mode)
                fine = fine and not found
                for problem in found or [Problem("it can run")]:
                    hint = f" (hint: {problem.hint})" if problem.hint else ""
                    print(f"{path}: mode {mode}: {problem.text}{hint}")
    return 0 if fine else EXIT_VMCTL


def _works(path: str) -> list[Workload]:
    """Return the workload of a file, or those of a stack after the check for clashes. Raises SpecError."""
    raw = textfile.read(path, "workload file")
    if not yamltree.is_stack(raw):
        return [workloadfile.load(path, raw=raw)]
    from vmctl.cli import output
    from vmctl.stacks import clashes, graph, loading
    from vmctl.stacks.stack import Source

    stack = loading.load(Source((path,), environ=dict(os.environ)), {path: raw})
    for text in stack.warnings:
        output.note(f"warning: {text}")
    services = graph.selected(stack)
    instances = {name: service.instances() for name, service in services.items()}
    clashes.check(services, instances, loading.used_networks(stack, services))
    return [work for works in instances.values() for work in works]


def _modes(mode: str | None) -> list[str]:
    if mode == "all":
        return sorted(backends.modes())
    return [mode] if mode else []


def _problems(work: Workload, mode: str) -> list[Problem]:
    """Return what prevents a start in a mode. Raises SpecError for an unknown mode."""
    try:
        return engine.problems(work, backends.load(mode))
    except SpecError:
        raise
    except VmctlError as error:  # the mode is not installed
        return [Problem(str(error), error.hint)]


def _schema(of: str) -> dict[str, Any]:
    if of == "workload":
        return workloadfile.schema()
    from images.recipes import recipe

    return recipe.schema()
