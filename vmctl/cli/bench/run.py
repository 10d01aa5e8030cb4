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
    from vmctl.workload import Workload

EXAMPLE = "vmctl bench web.yaml --runs 50 --out results"
MODES, RUNS = "host,container,vm", 30
# what is laid down once and for all, and what it is where nothing is said
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
    parser.add_argument("--modes", default=MODES, metavar="M,...", help=f"default: {MODES}")
    parser.add_argument(
        "--metrics",
        metavar="M,...",
        help="default: boot,memory,disk,teardown (boot,teardown without `ready`); also cpu, syscall, io, net, density",
    )
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="counted rounds (default: 30, the least for an interval)"
    )
    parser.add_argument("--quick", action="store_true", help="only what the starts show: one instance at a time, idle")
    parser.add_argument("--cold", action="store_true", help="empty the page cache of what a start reads, before each")
    parser.add_argument("--instances", type=int, metavar="N", help="at most so many at once (default: 5)")
    parser.add_argument("--seed", type=int, help="of the random order (default: made up, and printed)")
    parser.add_argument("--time-limit", type=output.duration, metavar="TIME", help="per sample (default: enough)")
    parser.add_argument("--allow-missing", action="store_true", help="leave out modes that cannot run here")
    parser.add_argument("--out", metavar="DIR", help="for the result (default: where `bench history` finds it)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the measurement that was interrupted there")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    modes.add_options(parser, sorted(backends.modes()))


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 unless a mode gave no sample at all."""
    from bench import result

    session = _resumed(args) if args.resume else _begun(args)
    progress = output.Progress()
    again = f"`vmctl bench --resume {session.folder}` goes on"
    try:
        session.follow(progress)
        done = session.result()
        path = result.write(done, session.folder)
        _exports(done, session.folder)
    except KeyboardInterrupt:
        progress.clear()
        output.note(f"the samples so far are kept: {again}")
        raise
    except OSError as error:  # a full disk, a folder that somebody has removed
        if not os.path.isdir(session.folder):
            raise VmctlError(f"{session.folder}, where the samples are kept, has been removed") from None
        where = error.filename or session.folder
        raise VmctlError(f"{where} cannot be written: {error.strerror}", hint=f"when that is mended, {again}") from None
    finally:
        progress.clear()
    _show(done, args.format)
    output.note(f"\n{path}\n{os.path.join(session.folder, 'report.html')}")
    counted = {one.mode for one in done.samples if one.counts}
    return 0 if set(done.plan.modes) <= counted else 1


def _resumed(args: argparse.Namespace) -> Session:
    from bench import session

    said = [name for name, usual in _PLANNED.items() if getattr(args, name) != usual] + list(modes.chosen(args))
    if said:
        words = ", ".join("a workload file" if name == "spec" else f"--{name.replace('_', '-')}" for name in said)
        raise SpecError(
            f"--resume goes on with what was asked for then; {words} cannot be changed", hint="vmctl bench --resume DIR"
        )
    return session.resume(args.resume)


def _begun(args: argparse.Namespace) -> Session:
    from bench import schedule, session
    from bench.questions import BATCH_METRICS, DEFAULT_METRICS
    from vmctl import paths

    check_counts(args, "runs", "instances")
    wanted = items("--modes", args.modes)
    options = modes.chosen(args, wanted)
    work = _work(args.spec)._replace(ports=())  # a port that is taken is no matter of the measurement
    usual = DEFAULT_METRICS if work.ready else BATCH_METRICS
    metrics = usual if args.metrics is None else tuple(items("--metrics", args.metrics))
    schedule.check_metrics(metrics)
    present, refusals = _modes(work, wanted, options, allow_missing=args.allow_missing)
    made = schedule.make(
        work,
        present,
        metrics,
        args.runs,
        seed(args.seed),
        cold=args.cold,
        instances=args.instances or schedule.INSTANCES,
        time_limit_s=args.time_limit,
        quick=args.quick,
    )
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = args.out or os.path.join(paths.state_root(), "bench", f"{work.name}-{moment}-{os.urandom(2).hex()}")
    return session.begin(folder, work, made, refusals, options)


def _work(path: str | None) -> Workload:
    """Return the workload of a file. Raises SpecError, also for an action that is misspelt."""
    from difflib import get_close_matches

    from vmctl import spec

    if not path:
        raise SpecError("bench needs a workload file", hint="vmctl bench SPEC; `vmctl bench --help` has more")
    if not os.path.exists(path) and (near := get_close_matches(path, ACTIONS, 1)):
        raise SpecError(f"there is no workload file {path}", hint=f"did you mean `vmctl bench {near[0]}`?")
    return spec.load(path)


def _modes(
    work: Workload, names: list[str], options: dict[str, str], *, allow_missing: bool
) -> tuple[list[str], tuple[Refusal, ...]]:
    """Return the modes that can run here, and why the others cannot. Raises UnavailableError unless that is allowed."""
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
        raise UnavailableError(f"{work.name} can run in none of these modes here", detail=detail)
    return [mode for mode in names if mode not in left_out], tuple(refusals)


def _exports(done: Result, folder: str) -> None:
    from bench import export
    from bench.report import page
    from vmctl.linux.filetree import write_atomic

    files = {"samples.csv": export.samples_csv, "report.md": export.markdown, "hyperfine.json": export.hyperfine}
    for name, make in {**files, "report.html": page.page}.items():
        with suppress(SpecError):  # hyperfine's format is about start times, and there may be none
            write_atomic(os.path.join(folder, name), make(done))


def _show(done: Result, form: str) -> None:
    from bench import table

    if form == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(done), indent=1).decode())
        return
    work = done.plan.workload
    output.note(f"{work['name']}: image {work['image']}, {' '.join(work.get('command') or ['its own command'])}\n")
    output.print_table(("", *table.titles(done)), list(table.rows(done)))
    if ratios := list(table.ratio_rows(done)):
        output.note("")
        output.print_table(("", "modes", "ratio", ""), ratios)
    output.note("\n" + "\n".join(table.notes(done)))
