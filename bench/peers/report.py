"""Run all studies of vmctl's cost, and show their results as tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bench import folder, manifest
from bench.export import markdown_table
from bench.peers import claims, containers, engines, guests, savings
from bench.peers.claims import Verdict
from bench.peers.root import Root, shared_root
from bench.peers.study import Study, study
from bench.statistics import ENOUGH, median_interval
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.linux import processes
from vmctl.spec.units import format_seconds

FORMAT = "vmctl peers 1"
GUEST_RUNS = 8  # a guest takes seconds, a container milliseconds
SETTLE_S = 1.0  # until the supervisor has freed the memory that only its start needed
MIB = 1024**2
NOTES = (
    "A round starts every contender once, in random order; the first round is discarded.",
    "First byte: from just before the contender is asked to start until the workload's first byte is seen. For vmctl "
    "this is T0, in a fresh process that has imported and prepared everything; the others are then executed.",
    "All run /bin/echo from the same EROFS layer, which an idle instance keeps mounted and in the page cache. "
    "vmctl and the floor mount their overlay themselves; for the others it is already mounted.",
    "docker gets the same files as an image, and its service is already running; podman uses the folder directly.",
    "virsh starts the same domain as vmctl through a libvirtd that is already running; vmctl uses the embedded driver.",
    "Making the cgroup belongs to vmctl's preparation, before T0; `vmctl run` as a whole command includes it.",
    "The floor is a C program: clone3 with the same namespaces except that of users, overlay, pivot_root, exec; no "
    "cgroup, no seccomp. runc and bwrap have no user namespace here either, vmctl has one.",
)


class Report(NamedTuple):
    """All studies, and the verdicts on the claims."""

    studies: tuple[Study, ...]
    verdicts: tuple[Verdict, ...]
    runs: int
    seed: int
    host: dict[str, Any]


def measure(runs: int, seed: int, progress: Callable[[str], None], *, bzimage: str | None) -> Report:
    """Run every study; that of a guest's savings needs its kernel as it was distributed, and enough rounds.

    Raises UnavailableError if runc or a C compiler is missing.
    """
    with shared_root(containers.workload()) as root:
        time.sleep(SETTLE_S)
        supervisor = processes.pss_bytes(root.instance.state.supervisor_pid or 0)
        image_bytes = footprint(root.instance).shared_disk_bytes
        with engines.contenders(root) as others:
            studies = [study(*each, runs, seed, progress) for each in _of_containers(root, others)]
    guest = study(guests.TITLE, guests.contenders(), min(runs, GUEST_RUNS), seed, progress)
    saved = [of_savings(bzimage, seed, progress)] if bzimage and runs >= GUEST_RUNS else []  # it takes minutes
    starts, commands, interpreters = studies
    verdicts = (
        *claims.start_verdicts(starts),
        claims.ratio_verdict("whole command", commands, containers.VMCTL_RUN, containers.RUNC, 1.2),
        *(
            claims.difference_verdict(name, interpreters, name, containers.PYTHON, 0.060)
            for name in (containers.HELP, containers.PS)
        ),
        claims.ratio_verdict("guest's first byte", guest, guests.OURS, guests.BY_HAND, 1.2),
        *(claims.ratio_verdict("guest's cold start", one, savings.ALL, savings.NONE, savings.AT_MOST) for one in saved),
        claims.size_verdict("memory of a container's supervisor, PSS", supervisor, 6 * MIB),
        _disk_verdict(image_bytes),
    )
    return Report((*studies, guest, *saved), verdicts, runs, seed, manifest.facts())


def of_savings(bzimage: str, seed: int, progress: Callable[[str], None]) -> Study:
    """Return the study of a guest's cold start with and without its savings; without a guest, the reason."""
    try:
        with savings.contenders(bzimage) as ways:
            return study(savings.TITLE, ways, GUEST_RUNS, seed, progress)
    except VmctlError as error:  # no guest starts on this host
        names = (savings.NONE, savings.ALL)
        return Study(savings.TITLE, {name: [None] for name in names}, dict.fromkeys(names, str(error)))


def _disk_verdict(image_bytes: int) -> Verdict:
    claim = "disk that an idle guest adds to its image"
    try:
        return claims.size_verdict(claim, guests.own_disk_bytes(), image_bytes)
    except VmctlError as error:
        return Verdict(claim, "less than the image", str(error), None)


def _of_containers(
    root: Root, others: dict[str, containers.Contender]
) -> Iterator[tuple[str, dict[str, containers.Contender]]]:
    yield "container start to first byte", {**containers.contenders(root), **others}
    yield "whole command to its end", containers.commands(root)
    yield "command line compared with a bare interpreter", containers.interpreters()


def study_rows(one: Study) -> list[tuple[str, ...]]:
    """Return the rows of a study: contender, median, fastest, interval of the median, rounds."""
    rows: list[tuple[str, ...]] = []
    for name in one.seconds:
        known = one.known(name)
        if not known:
            rows.append((name, "-", "-", "-", one.failures.get(name, "not measured")))
            continue
        interval = median_interval(known)
        text = f"{format_seconds(interval.low)} to {format_seconds(interval.high)}" if interval else "-"
        count = f"{len(known)} of {len(one.seconds[name])}"
        rows.append((name, format_seconds(one.median_s(name) or 0), format_seconds(min(known)), text, count))
    return rows


STUDY_COLUMNS = ("contender", "median", "fastest", "95 % interval", "rounds")
VERDICT_COLUMNS = ("claim", "target", "measured", "met")


def verdict_rows(report: Report) -> list[tuple[str, ...]]:
    """Return the rows of the verdicts; see VERDICT_COLUMNS."""
    words = {True: "met", False: "not met", None: "not measured"}
    return [(v.claim, v.target, v.measured, words[v.met]) for v in report.verdicts]


def notes(report: Report) -> Iterator[str]:
    """Yield the notes needed to read the tables."""
    yield from NOTES
    yield f"Seed {report.seed}; {report.host['cpu']}, {report.host['cpus']} CPUs, Linux {report.host['kernel']}."
    if report.runs < ENOUGH:
        yield f"Fewer than {ENOUGH} rounds: no interval is given."


def document(report: Report) -> dict[str, Any]:
    """Return the content of `peers.json`: the report with every raw sample."""
    return {
        "format": FORMAT,
        "runs": report.runs,
        "seed": report.seed,
        "host": report.host,
        "studies": [one._asdict() for one in report.studies],
        "verdicts": [verdict._asdict() for verdict in report.verdicts],
    }


def write(report: Report, place: str) -> None:
    """Write `peers.json` and `peers.md` into a folder."""
    lines = ["# The cost of vmctl compared with others", "", *markdown_table(VERDICT_COLUMNS, verdict_rows(report))]
    for one in report.studies:
        lines += ["", f"## {one.title.capitalize()}", "", *markdown_table(STUDY_COLUMNS, study_rows(one))]
    lines += ["", *(f"- {note}" for note in notes(report))]
    folder.write(place, "peers", document(report), lines)
