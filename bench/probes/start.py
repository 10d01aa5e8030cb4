"""The user's own workload, one instance of it from the start to the removal: boot, memory when idle, disk, teardown."""

from __future__ import annotations

import signal
import sys

from bench import atrest
from bench.probes import Request, Seen, tool
from bench.questions import Question, between, value
from vmctl import engine, readiness
from vmctl.backend import Backend, Watch
from vmctl.errors import DeadlineError, VmctlError
from vmctl.footprint import footprint
from vmctl.instance import Instance
from vmctl.workload import Workload

ROUNDS = None
SPARE_S = 180.0  # beside the time the workload may take to get ready: preparation, removal, a slow host
BATCH_S = 60.0
GONE_S = 30.0  # after SIGKILL; a guest's QEMU gives its memory back first
CODE = 7
QUESTION = ("sh", "-c", f"uname -r; exit {CODE}")

QUESTIONS = (
    Question(
        "boot.answer_s",
        "start to first answer",
        "s",
        between("T0", "T6"),
        headline=True,
        service=True,
        meaning="T0, the engine asks the backend to start, to T6, its probe succeeds. A guest's port is "
        "knocked at every millisecond once its init runs; of all else the host is woken by the kernel.",
    ),
    Question(
        "boot.output_s",
        "start to first output",
        "s",
        between("T0", "T5"),
        headline=True,
        service=False,
        meaning="T0, the engine asks the backend to start, to T5, the first byte of the workload's output is seen.",
    ),
    Question(
        "boot.process_s",
        "  until the process exists",
        "s",
        between("T0", "T1"),
        meaning="T0 to T1: clone3 has returned, or QEMU has been executed and let go by libvirt.",
    ),
    Question(
        "boot.init_s",
        "  from there to our init",
        "s",
        between("T1", "T4"),
        meaning="T1 to T4, the first line of our init; for a guest this is its firmware and its kernel.",
    ),
    Question(
        "boot.work_answer_s",
        "  from there to the answer",
        "s",
        between("T4", "T6"),
        service=True,
        meaning="T4 to T6: mounts, the workload's own start, and the way to its first answer.",
    ),
    Question(
        "boot.work_output_s",
        "  from there to the output",
        "s",
        between("T4", "T5"),
        service=False,
        meaning="T4 to T5: mounts, the workload's own start, and the way of its first byte to the host.",
    ),
    *atrest.QUESTIONS,
    Question(
        "disk.own_bytes",
        "disk of its own",
        "bytes",
        value("disk_bytes"),
        meaning="Allocated bytes (st_blocks * 512, stat(2)) of the folder of one instance, when it is up.",
    ),
    Question(
        "disk.shared_bytes",
        "disk shared with other instances",
        "bytes",
        value("shared_disk_bytes"),
        meaning="Allocated bytes of the image's layers, and of kernel and initrd: they are there once, for any number.",
    ),
    Question(
        "teardown.removal_s",
        "removal, all of it",
        "s",
        between("T7", "T9"),
        headline=True,
        meaning="T7, the removal by force is asked for, to T9: no process, mount, cgroup, link or file of it is left.",
    ),
    Question(
        "teardown.end_s",
        "  until the process is gone",
        "s",
        between("T7", "T8"),
        service=True,
        meaning="T7 to T8: SIGKILL, as `vmctl rm -f` sends it, until the kernel has no such process any more.",
    ),
    Question(
        "teardown.release_s",
        "  from there until all is released",
        "s",
        between("T8", "T9"),
        service=True,
        meaning="T8 to T9: mounts, cgroup, network link and files.",
    ),
)


def prepare(work: Workload) -> Workload:
    """Return the workload without its published ports: probes ask it from inside its network, a forwarder would add."""
    return work._replace(ports=())


def limit_s(work: Workload, instances: int) -> float:
    """Return after how many seconds a sample is given up."""
    return SPARE_S + (work.ready.timeout_s if work.ready else BATCH_S)


def observe(request: Request) -> Seen:
    """Return what was seen of one instance from its start to its removal. Raises errors of vmctl.errors.

    T7, T8 and T9 are marked for an instance that is removed after it has been looked at: a batch has then ended by
    itself, so there is no T8.
    """
    backend = request.backend()
    before = atrest.kernel_bytes()
    with engine.running(request.work, backend) as start:
        inst = start.inst
        seen = _service(request, inst, backend, before) if request.work.ready else _batch(start.watch)
        inst.timeline.mark("T7")
        if request.work.ready:
            end(start.watch, backend)
    return seen._replace(marks_ns=dict(inst.timeline.marks_ns))


def end(watch: Watch, backend: Backend) -> None:
    """End a running instance as a removal by force does and mark T8 when it is gone. Raises VmctlError."""
    inst = watch.inst
    backend.signal(inst, signal.SIGKILL)
    if not readiness.wait_until(lambda: not watch.alive(), watch, GONE_S):
        raise VmctlError(f"{inst.name} does not end within {GONE_S:g} s, not even by SIGKILL")
    inst.timeline.mark("T8")


def _service(request: Request, inst: Instance, backend: Backend, before: int) -> Seen:
    """Look at an instance that has just become ready."""
    values, texts = atrest.settle(inst)
    found = footprint(inst)
    values.update(atrest.read(inst, found), **atrest.disk(found))
    values["kernel_bytes"] = atrest.kernel_bytes() - before
    texts.update(tool.texts(inst))
    if request.look:
        values.update(atrest.inside(inst, backend))
        texts.update(_answer(inst))
    return Seen({}, values, {}, texts)


def _batch(watch: Watch) -> Seen:
    """Stay with an instance until it has ended by itself; it marks T5 on the way."""
    inst = watch.inst

    def over() -> bool:
        running = watch.alive()
        watch.observe()
        return not running

    if not readiness.wait_until(over, watch, BATCH_S):
        raise DeadlineError(
            f"{inst.name} did not end within {BATCH_S:g} s, and has no `ready` to wait for",
            hint="a service needs `ready:` in the workload file",
        )
    result = engine.wait(inst)
    code = {"exit_code": str(result.code)} if result else {}
    return Seen({}, atrest.disk(footprint(inst)), {}, {**tool.texts(inst), **code})


def _answer(inst: Instance) -> dict[str, str]:
    """Ask the instance for its page, its kernel, and for an exit code."""
    from hashlib import sha256

    from vmctl.run import run

    argv = [sys.executable, "-m", "vmctl", "exec", "--no-stdin", inst.name, "--", *QUESTION]
    code, output, _ = run(argv, check=False, timeout_s=60.0)
    texts = {"exit_code": str(code), "kernel": output.strip()}
    page = _page(inst)
    if page is not None:
        texts.update(page=page.decode(errors="replace"), page_digest="sha256:" + sha256(page).hexdigest())
    return texts


def _page(inst: Instance) -> bytes | None:
    """Return the body of what the workload's probe asks for, fetched from where the probe is."""
    from http.client import HTTPConnection

    from vmctl.net import connect

    if inst.work.ready is None or inst.work.ready.http is None:
        return None
    probe, address = inst.work.ready.http, inst.state.address or "127.0.0.1"
    http = HTTPConnection(address, probe.port)
    http.sock = connect.connect(address, probe.port, timeout_s=10.0)
    http.request("GET", probe.path)
    return http.getresponse().read()
