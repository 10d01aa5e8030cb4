"""Read and write blocks of a file on the instance's writable layer, by fio(1) in a separate image.

fio counts the operations, and the host measures the time: fio runs a command before and after each job, which writes
the line that the host waits for. A guest's clock decides when a job ends, the host's clock how long it took.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from bench.probes import Request, Seen, tool
from bench.probes.lines import follow, spans
from bench.questions import Question, value
from vmctl.backend import Backend
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.spec.workload import Workload

ROUNDS = None
RECIPE, IMAGE = "fio", "bench/fio"
FILE_BYTES = 32 * 1024**2
JOB_MS = 500
_RUN_S = 120.0  # all jobs: an emulated guest takes a second to start each

# name -> the arguments of fio that only this job has
JOBS = {
    "read_qd1": "--rw=randread --ioengine=libaio --iodepth=1",
    "read_qd32": "--rw=randread --ioengine=libaio --iodepth=32",
    "write_qd1": "--rw=randwrite --ioengine=libaio --iodepth=1",
    "write_qd32": "--rw=randwrite --ioengine=libaio --iodepth=32",
    "durable": "--rw=randwrite --ioengine=psync --fdatasync=1",
}

# fio redirects the output of its commands to a file, so they write to descriptor 9. The file is written once before the
# jobs, so that no write allocates.
_SCRIPT = """
set -e
exec 9>&1
cd /
lay() { fio --name=lay --filename=/bench.io --rw=write --bs=1M --size=$1 --end_fsync=1 --thread --direct=$2; }
job() {
    name=$1
    shift
    fio --name="$name" --filename=/bench.io --bs=4k --size=$size --thread --direct=$direct --time_based \\
        --runtime=$time --exec_prerun="echo begin $name >&9; true" --exec_postrun="echo end $name >&9; true" \\
        --output-format=json --output="/$name.json" "$@" >&2
}
size=SIZE time=SECONDS direct=1
lay $size 1 >&2 || { direct=0; lay $size 0 >&2; }
echo "direct $direct"
JOBS
echo done
"""

_MEANING = (
    f"Blocks of 4 KiB at random places of a file of {FILE_BYTES >> 20} MiB on the writable layer, for {JOB_MS} ms, "
    "with O_DIRECT if its file system supports it. fio counts; the host measures the time from the output of fio's "
    "exec_prerun to that of its exec_postrun, each of which wakes it and includes the start of a shell. A guest's disk "
    "is a file in the page cache of the host."
)


def _question(name: str, title: str, meaning: str = "", *, headline: bool = False) -> Question:
    return Question(
        f"io.{name}_per_s",
        title,
        "1/s",
        value(f"{name}_per_s"),
        less_is_better=False,
        headline=headline,
        meaning=f"{meaning} {_MEANING}".strip(),
    )


QUESTIONS = (
    _question("read_qd1", "disk: reads", "One at a time.", headline=True),
    _question("read_qd32", "disk: reads, 32 at once", "32 outstanding at any time."),
    _question("write_qd1", "disk: writes", "One at a time, not flushed to the medium."),
    _question("write_qd32", "disk: writes, 32 at once", "32 outstanding at any time, not flushed to the medium."),
    _question("durable", "disk: durable writes", "fdatasync(2) after each write, one at a time.", headline=True),
)


def prepare(work: Workload) -> Workload:
    """Return the workload with fio as its command, in fio's image, which is built if missing. Raises VmctlError."""
    tool.build(RECIPE, IMAGE, "the image with fio cannot be built")
    return disked(work, JOBS)


def disked(work: Workload, names: Iterable[str]) -> Workload:
    """Return the workload with these jobs of JOBS as its command, one after the other, in IMAGE."""
    jobs = [f'job {name} {JOBS[name]}\necho "json {name}"\ncat "/{name}.json"' for name in names]
    script = _SCRIPT.replace("SIZE", str(FILE_BYTES)).replace("SECONDS", f"{JOB_MS}ms").replace("JOBS", "\n".join(jobs))
    return tool.bare(work)._replace(image=IMAGE, command=("sh", "-c", script))


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return tool.LIMIT_S


def observe(request: Request) -> Seen:
    """Return the operations per second of each job. Raises errors of vmctl.errors."""
    with tool.running(request) as start:
        inst = start.inst
        lines = follow(start.watch, "done", _RUN_S)
        texts = {**tool.texts(inst), **_caching(inst.work, request.backend(), [line for _, line in lines])}
        allocated_bytes = footprint(inst).disk_bytes
    counts = operations([line for _, line in lines])
    values = {f"{name}_per_s": counts[name] / span.seconds for name, span in spans(lines).items() if name in counts}
    return Seen(dict(inst.timeline.marks_ns), {**values, "allocated_bytes": allocated_bytes}, {}, texts)


def operations(lines: Sequence[str]) -> dict[str, int]:
    """Return name -> number of reads and writes, from fio's JSON after each line "json NAME"."""
    texts: dict[str, list[str]] = {}
    name, inside = "", False
    for line in lines:
        if line.startswith("json "):
            name = line.partition(" ")[2]
        inside = inside or bool(name and line == "{")  # after notes of fio
        if inside:
            texts.setdefault(name, []).append(line)
        if line == "}":
            name, inside = "", False
    return {name: _done(name, "\n".join(text)) for name, text in texts.items()}


def _done(name: str, text: str) -> int:
    try:
        job = json.loads(text)["jobs"][0]
        count = int(job["read"]["total_ios"]) + int(job["write"]["total_ios"])
    except (ValueError, LookupError) as error:
        raise VmctlError(f"fio's report on its job {name} cannot be read: {error}", detail=text[:2000]) from None
    if job["error"] or not count:
        raise VmctlError(f"fio's job {name} ended with error {job['error']} after {count} operations")
    return count


def _caching(work: Workload, backend: Backend, lines: Sequence[str]) -> dict[str, str]:
    """Return a text about the caches between the program and the medium."""
    direct = "direct 1" in lines
    inside = "O_DIRECT" if direct else "through the page cache: the file system refuses O_DIRECT"
    if not backend.features.own_kernel:
        return {"cache": inside}
    raw = "".join(step.raw for step in backend.explain(work))
    mode = re.search(r"<driver[^>]* cache=[\"'](\w+)[\"']", raw)
    drive = mode[1] if mode else "writeback, QEMU's default"
    return {"cache": f"{inside} inside; the drive's cache: {drive}"}
