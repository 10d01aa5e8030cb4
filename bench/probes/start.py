"""One instance of the user's workload, from its start to its removal: boot, memory when idle, disk, teardown."""

from __future__ import annotations

import signal

from bench import atrest
from bench.probes import Request, Seen, tool
from bench.questions import Question, between, value
from vmctl import engine, readiness
from vmctl.backend import Backend, Watch
from vmctl.errors import DeadlineError, VmctlError
from vmctl.footprint import footprint
from vmctl.instances.instance import Instance
from vmctl.spec.workload import Workload

ROUNDS = None
SPARE_S = 180.0  # in addition to the workload's own time to get ready: preparation, removal, a slow host
BATCH_S = 60.0
GONE_S = 30.0  # after SIGKILL; QEMU frees the guest's memory first
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
        meaning="From T0, when the engine asks the backend to start, to T6, when the probe succeeds. A guest's port is "
        "tried every millisecond once its init runs; the kernel wakes the host for everything else.",
    ),
    Question(
        "boot.output_s",
        "start to first output",
        "s",
        between("T0", "T5"),
        headline=True,
        service=False,
        meaning="From T0, when the engine asks the backend to start, to T5, when the host sees the first byte of the "
        "workload's output.",
    ),
    Question(
        "boot.process_s",
        "  until the process exists",
        "s",
        between("T0", "T1"),
        meaning="T0 to T1: clone3 has returned, or libvirt has executed QEMU and let it continue.",
    ),
    Question(
        "boot.init_s",
        "  from there to our init",
        "s",
        between("T1", "T4"),
        compared=False,
        meaning="T1 to T4, the first line of our init; for a guest this is its firmware and its kernel.",
    ),
    Question(
        "boot.work_answer_s",
        "  from there to the answer",
        "s",
        between("T4", "T6"),
        service=True,
        meaning="T4 to T6: mounts, the workload's own start, and the time to its first answer.",
    ),
    Question(
        "boot.work_output_s",
        "  from there to the output",
        "s",
        between("T4", "T5"),
        service=False,
        meaning="T4 to T5: mounts, the workload's own start, and the transfer of its first byte to the host.",
    ),
    *atrest.QUESTIONS,
    Question(
        "disk.own_bytes",
        "own disk space",
        "bytes",
        value("disk_bytes"),
        meaning="Allocated bytes (st_blocks * 512, stat(2)) of the folder of one instance, when it is up.",
    ),
    Question(
        "disk.shared_bytes",
        "disk space shared with other instances",
        "bytes",
        value("shared_disk_bytes"),
        meaning="Allocated bytes of the image's layers, of kernel and initrd: they exist once for any number of "
        "instances.",
    ),
    Question(
        "teardown.removal_s",
        "removal",
        "s",
        between("T7", "T9"),
        headline=True,
        meaning="From T7, when the removal by force begins, to T9, when no process, mount, cgroup, link or file of the "
        "instance is left.",
    ),
    Question(
        "teardown.end_s",
        "  until the process is gone",
        "s",
        between("T7", "T8"),
        service=True,
        meaning="T7 to T8: from SIGKILL, as `vmctl rm -f` sends it, until the process no longer exists.",
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
    """Return the workload without its published ports: probes use its own network, and a forwarder adds cost."""
    return work._replace(ports=())


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return SPARE_S + (work.ready.timeout_s if work.ready else BATCH_S)


def observe(request: Request) -> Seen:
    """Return the observations of one instance from its start to its removal. Raises errors of vmctl.errors.

    The sample has T7, T8 and T9 of the removal. A workload that ends by itself has no T8.
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
    """Kill a running instance, as a removal by force does, and mark T8 when it has ended. Raises VmctlError."""
    inst = watch.inst
    backend.signal(inst, signal.SIGKILL)
    if not readiness.wait_until(lambda: not watch.alive(), watch, GONE_S):
        raise VmctlError(f"{inst.name} is still running {GONE_S:g} s after SIGKILL")
    inst.timeline.mark("T8")


def _service(request: Request, inst: Instance, backend: Backend, before: int) -> Seen:
    """Return the memory and disk of an instance that has just become ready."""
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
    """Observe an instance until it has ended by itself; this marks T5."""
    inst = watch.inst

    def over() -> bool:
        running = watch.alive()
        watch.observe()
        return not running

    if not readiness.wait_until(over, watch, BATCH_S):
        raise DeadlineError(
            f"{inst.name} did not end within {BATCH_S:g} s, and its workload has no `ready` to wait for",
            hint="add `ready:` to the workload file of a service",
        )
    result = engine.wait(inst)
    code = {"exit_code": str(result.code)} if result else {}
    return Seen({}, atrest.disk(footprint(inst)), {}, {**tool.texts(inst), **code})


def _answer(inst: Instance) -> dict[str, str]:
    """Return texts from the instance: its page, its kernel, and the exit code of a command."""
    from hashlib import sha256

    from vmctl.programs import module, run

    argv = module("vmctl", "exec", "--no-stdin", inst.name, "--", *QUESTION)
    code, output, _ = run(argv, check=False, timeout_s=60.0)
    texts = {"exit_code": str(code), "kernel": output.strip()}
    page = _page(inst)
    if page is not None:
        texts.update(page=page.decode(errors="replace"), page_digest="sha256:" + sha256(page).hexdigest())
    return texts


def _page(inst: Instance) -> bytes | None:
    """Return the body of the page of the workload's probe, fetched like the probe does; None without such a page."""
    from http.client import HTTPConnection

    from vmctl.net import connect

    if inst.work.ready is None or inst.work.ready.http is None:
        return None
    probe, address = inst.work.ready.http, inst.state.address or "127.0.0.1"
    http = HTTPConnection(address, probe.port)
    http.sock = connect.connect(address, probe.port, timeout_s=10.0)
    http.request("GET", probe.path)
    return http.getresponse().read()
