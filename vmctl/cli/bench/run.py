"""vmctl bench SPEC."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress

from vmctl import backends
from vmctl.cli import modes, output
from vmctl.cli.bench import ACTIONS, check_counts, items, seed
from vmctl.errors import SpecError, UnavailableError, VmctlError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.model import Refusal, Result
    from bench.session import Session
    from vmctl.spec.workload import Workload

EXAMPLE = "vmctl bench web.yaml --runs 50 --out results"
MODES, RUNS = "host,container,vm", 30
# the flags that --resume does not allow, since the plan has them already, and their defaults
_PLANNED = {
    "spec": None,
    "modes": MODES,
    "metrics": None,
    "runs": RUNS,
    "quick": False,
    "cold": False,
    "instances": None,
    "seed": None,
    "time_limit": None,
    "allow_missing": False,
    "out": None,
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", nargs="?", help="workload file")
    parser.add_argument("--modes", default=MODES, metavar="M,...", help=f"modes to measure (default: {MODES})")
    parser.add_argument(
        "--metrics",
        metavar="M,...",
        help="metrics to measure (default: boot,memory,disk,teardown; boot,teardown without `ready`); also cpu, "
        "syscall, exec, io, net, density",
    )
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="counted rounds (default: 30, the fewest that give an interval)"
    )
    parser.add_argument("--quick", action="store_true", help="only start, observe and remove one instance at a time")
    parser.add_argument(
        "--cold", action="store_true", help="evict the files that a start reads from the page cache before each start"
    )
    parser.add_argument("--instances", type=int, metavar="N", help="most instances at once (default: 5)")
    parser.add_argument("--seed", type=int, help="seed for the random order (default: random, and printed)")
    parser.add_argument(
        "--time-limit",
        type=output.duration,
        metavar="TIME",
        help="time limit for one sample (default: depends on the metric)",
    )
    parser.add_argument("--allow-missing", action="store_true", help="leave out modes that cannot run on this host")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the result (default: a new one that `bench history` finds)"
    )
    parser.add_argument("--resume", metavar="DIR", help="continue the interrupted measurement in DIR")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="output format (default: table)")
    modes.add_options(parser, sorted(backends.modes()))


def run(args: argparse.Namespace) -> int:
    """Measure and print; return 0, or 1 if a mode gave no sample at all."""
    from bench import result

    session = _resumed(args) if args.resume else _begun(args)
    _note_estimate(session)
    progress = output.Progress()
    again = f"`vmctl bench --resume {session.folder}` continues"
    try:
        session.follow(progress)
        done = session.result()
        path = result.write(done, session.folder)
        _exports(done, session.folder)
    except KeyboardInterrupt:
        progress.clear()
        output.note(f"the samples so far are kept: {again}")
        raise
    except OSError as error:  # a full disk, a removed folder
        if not os.path.isdir(session.folder):
            raise VmctlError(f"the folder of the samples, {session.folder}, has been removed") from None
        path = error.filename or session.folder
        raise VmctlError(f"cannot write {path}: {error.strerror}", hint=f"once this is fixed, {again}") from None
    finally:
        progress.clear()
    _show(done, args.format)
    output.note(f"\n{path}\n{os.path.join(session.folder, 'report.html')}")
    counted = {one.mode for one in done.samples if one.counts}
    return 0 if set(done.plan.modes) <= counted else 1


def _note_estimate(session: Session) -> None:
    """Print how much there is to measure, and how long that may take, before it begins."""
    from bench.session import estimate_s
    from vmctl.spec.units import format_seconds

    plan = session.head.plan
    output.note(
        f"measuring {len(plan.steps)} samples in {', '.join(plan.modes)}: about {format_seconds(estimate_s(plan))} "
        "if guests are emulated; Ctrl-C keeps what is measured by then"
    )


def _resumed(args: argparse.Namespace) -> Session:
    from bench import session

    given = [name for name, usual in _PLANNED.items() if getattr(args, name) != usual] + list(modes.chosen(args))
    if given:
        words = ", ".join("a workload file" if name == "spec" else f"--{name.replace('_', '-')}" for name in given)
        raise SpecError(
            f"--resume continues with the original settings and cannot be combined with {words}",
            hint="vmctl bench --resume DIR",
        )
    return session.resume(args.resume)


def _begun(args: argparse.Namespace) -> Session:
    from bench import equal, schedule, session
    from bench.questions import BATCH_METRICS, DEFAULT_METRICS
    from vmctl import paths

    check_counts(args, "runs", "instances")
    wanted = items("--modes", args.modes)
    options = modes.chosen(args, wanted)
    work = _work(args.spec)._replace(ports=())  # a taken port does not affect the measurement
    if work.ready and not work.ready.probes():
        work = work._replace(ready=None)  # a limit of time is not what is measured
    usual = DEFAULT_METRICS if work.ready else BATCH_METRICS
    metrics = usual if args.metrics is None else tuple(items("--metrics", args.metrics))
    schedule.check_metrics(metrics)
    present, refusals = _modes(work, wanted, options, allow_missing=args.allow_missing)
    alike = equal.granted(work, present, options)
    made = schedule.make(
        alike,
        present,
        metrics,
        args.runs,
        seed(args.seed),
        cold=args.cold,
        instances=args.instances or schedule.INSTANCES,
        time_limit_s=args.time_limit,
        quick=args.quick,
        equalised=alike != work,
    )
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = args.out or os.path.join(paths.state_root(), "bench", f"{work.name}-{moment}-{os.urandom(2).hex()}")
    return session.begin(folder, alike, made, refusals, options)


def _work(path: str | None) -> Workload:
    """Return the workload of a file. Raises SpecError, also for a misspelt action."""
    from difflib import get_close_matches

    from vmctl.spec import workloadfile

    if not path:
        raise SpecError("bench needs a workload file", hint="`vmctl bench SPEC`; see `vmctl bench --help`")
    if not os.path.exists(path) and (near := get_close_matches(path, ACTIONS, 1)):
        raise SpecError(f"the workload file {path} does not exist", hint=f"did you mean `vmctl bench {near[0]}`?")
    return workloadfile.load(path)


def _modes(
    work: Workload, names: list[str], options: dict[str, str], *, allow_missing: bool
) -> tuple[list[str], tuple[Refusal, ...]]:
    """Return the modes that can run here, and why the others cannot.

    Raises UnavailableError if a mode cannot run and that is not allowed, or if none can.
    """
    from bench.model import Refusal
    from vmctl import engine

    if len(set(names)) < len(names):
        raise SpecError(f"a mode is named twice: {', '.join(names)}")
    refusals = []
    for mode in names:
        try:
            engine.check(work, backends.load(mode, backends.suited(mode, options)))
        except SpecError:
            raise
        except VmctlError as error:
            if not allow_missing:
                error.hint = f"{error.hint}; " * bool(error.hint) + "`--allow-missing` leaves the mode out"
                raise
            refusals.append(Refusal(mode=mode, kind="", reason=str(error)))
    left_out = {one.mode for one in refusals}
    if len(left_out) == len(names):
        detail = "\n".join(one.reason for one in refusals)
        raise UnavailableError(f"{work.name} cannot run in any of these modes here", detail=detail)
    return [mode for mode in names if mode not in left_out], tuple(refusals)


def _exports(done: Result, folder: str) -> None:
    from bench import export
    from bench.report import page
    from vmctl.linux.filetree import write_atomic

    files = {"samples.csv": export.samples_csv, "report.md": export.markdown, "hyperfine.json": export.hyperfine}
    for name, make in {**files, "report.html": page.page}.items():
        with suppress(SpecError):  # hyperfine's format needs start times, which may not have been measured
            write_atomic(os.path.join(folder, name), make(done))


def _show(done: Result, form: str) -> None:
    from bench import machine, table

    if form == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(done), indent=1).decode())
        return
    work = done.plan.workload
    output.note(f"{work['name']}: image {work['image']}, {' '.join(work.get('command') or ['its own command'])}\n")
    first = machine.first(done)
    for sentence in first:
        output.note(f"{sentence}\n")
    output.print_table(("", *table.titles(done)), list(table.rows(done)))
    if ratios := list(table.ratio_rows(done)):
        output.note("")
        output.print_table(("", "modes", "ratio", ""), ratios)
    output.note("\n" + "\n".join(note for note in table.notes(done) if note not in first))
