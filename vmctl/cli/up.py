"""vmctl up."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager

from vmctl import backends, engine, fromflags
from vmctl.backend import Backend
from vmctl.cli import keepingflags, modes, output, stackflags, startshow
from vmctl.errors import SpecError
from vmctl.instances import published
from vmctl.instances.instance import Instance
from vmctl.spec import textfile, workloadfile
from vmctl.spec.units import format_seconds
from vmctl.spec.workload import Workload

EXAMPLE = "vmctl up --mode vm web.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", nargs="*", help="workload file; or stack file, and services of it")
    modes.add(parser, default=None)
    keepingflags.add_remove(parser)
    parser.add_argument(
        "-p", "--name", "--project-name", help="name of the instance or the stack (default: the file's)"
    )
    add_wait(parser)
    parser.add_argument(
        "--explain", action="store_true", help="show each step on the host, with its raw command and the reason"
    )
    parser.add_argument("--dry-run", action="store_true", help="like --explain, but start nothing")
    parser.add_argument(
        "--script", metavar="FILE", help="write the steps of --explain as a shell script, and start nothing"
    )
    parser.add_argument(
        "--step",
        action="store_true",
        help="wait for Enter after each step of the start (--verbose: each of many alike)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the instance if its start fails, to look into it")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the name")
    startshow.add(parser)
    stackflags.arguments(parser)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add --wait and --no-wait."""
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait until it is ready and, if a system boots, cloud-init has finished (default)",
    )


def before(args: argparse.Namespace) -> None:
    """Read the file; of a stack, download images if that is asked for. Raises SpecError and errors of the registry."""
    args.file, args.spec = stackflags.files(args)
    args.contents = {}
    args.stack = None
    path = args.file[0]
    if path != stackflags.STDIN:
        args.contents[path] = textfile.read(path, "workload file")
    if len(args.file) == 1 and args.contents and not _is_stack(args.contents[path]):
        if args.spec:
            raise SpecError(f"{path} is one workload, it has no service {args.spec[0]}", hint=f"vmctl up {path}")
        return
    from vmctl.cli import stackup

    args.stack = stackup.loaded(args, args.file, args.contents)
    stackup.pull(args, args.stack, args.spec)


def _is_stack(raw: bytes) -> bool:
    if b"services" not in raw and b"include" not in raw:  # nearly every workload
        return False
    from vmctl.stacks import yamltree

    return yamltree.is_stack(raw)


def run(args: argparse.Namespace) -> int:
    """Start the workload, or the stack."""
    if args.step:
        from vmctl.cli import stepped

        stepped.check(stack=args.stack is not None)
    if args.stack is not None:
        if args.rm:
            raise SpecError("--rm is for one workload, not for a stack", hint="`vmctl down STACK` removes a stack")
        from vmctl.cli import stackup

        return stackup.up(args, args.stack, args.spec)
    path, mode = args.file[0], args.mode or fromflags.MODE
    options = modes.chosen(args)
    work = workloadfile.load(path, name=args.name, raw=args.contents[path])
    if (args.explain or args.dry_run or args.script) and _explained(args, work, backends.load(mode, options)):
        return 0
    with _shown(args, work, mode, options) as progress:
        inst = engine.up(
            work,
            mode,
            options=options,
            wait=args.wait,
            progress=progress,
            keep=args.keep,
            state=keepingflags.removes(args, work),
        )
    report(inst, quiet=args.quiet)
    return 0


def _shown(
    args: argparse.Namespace, work: Workload, mode: str, options: dict[str, str]
) -> AbstractContextManager[engine.Progress]:
    """Return what shows the progress of the start."""
    if not args.step:
        return startshow.shown(verbose=args.verbose, quiet=args.quiet)
    from vmctl.cli import stepped

    return stepped.shown(work, backends.load(mode, options), options, each=args.verbose)


def _explained(args: argparse.Namespace, work: Workload, backend: Backend) -> bool:
    """Show the steps of a start, or write them to a script, and return whether that is all."""
    from vmctl.cli import explained

    if args.script:
        explained.write(work, backend, args.script)
    else:
        explained.show(work, backend, verbose=args.verbose)
    if args.dry_run or args.script:
        engine.check(work, backend)
    return args.dry_run or bool(args.script)


def report(inst: Instance, *, quiet: bool) -> None:
    """Print the name of an instance that was started, and the rest to stderr."""
    print(inst.name)
    for warning in (*inst.state.weakened, *inst.state.warnings):
        if not output.is_known(warning):
            output.note(f"warning: {warning}")
    if not quiet:
        output.note(_summary(inst))


def _summary(inst: Instance) -> str:
    """Return the line about a start: mode, duration and addresses."""
    how = output.mode(inst.state.mode, inst.state.accelerator, inst.state.warm)
    line = inst.timeline
    took = line.between_s("T0", "T6")
    what = "ready" if took is not None else "started"
    took = took if took is not None else line.between_s("T0", "T1")
    text = f"{inst.name} is {what} in mode {how}" + (f" after {format_seconds(took)}" if took is not None else "")
    places = [f"{port.shown_address()}:{port.host_port}" for port in published.of(inst)] or [inst.state.address or ""]
    return text + (f", at {', '.join(places)}" if places[0] else "")
