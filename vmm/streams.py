"""The ports and the console of a guest on the host: FIFOs, files, and the recorder that fills the files."""

from __future__ import annotations

import os
from contextlib import suppress

from images.store.image import Image
from vmctl.instances.instance import Instance
from vmctl.keeping import held, runs
from vmctl.linux import processes
from vmctl.logs.logwriter import TIMES
from vmm import boot, caller, configure, domain, files, marks, recorder, watch

LOG_BYTES = 1 << 16  # of errors of the file servers, which a guest may cause at will


def make(inst: Instance, image: Image, *, owned: bool, tied: bool) -> None:
    """Create the FIFOs and the files of the guest's reports and logs, and start the recorder that fills the files.

    `owned`: the first caller of its terminal is its owner; `tied`: it ends with this process.
    """
    size_bytes = inst.work.logs.size_bytes
    streams = (
        (f"{files.console(inst)}.out", inst.console_log, size_bytes, False),
        (files.fifo(inst, "marks"), files.marks(inst), marks.MOST_BYTES, True),
        (files.fifo(inst, "stdout"), inst.stdout_log, size_bytes, False),
        (files.fifo(inst, "stderr"), inst.stderr_log, size_bytes, False),
        *([(files.fifo(inst, "volumes"), files.volumes_log(inst), LOG_BYTES, True)] if inst.work.volumes else []),
    )
    for path in (files.control(inst), f"{files.console(inst)}.in", *(fifo for fifo, *_ in streams)):
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
    files.mark_killed(inst.directory, killed=False)
    for path in (files.marks(inst), f"{files.marks(inst)}{TIMES}", files.agent(inst)):
        with suppress(FileNotFoundError):  # of an earlier start
            os.unlink(path)
    for _, path, *_ in streams:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if inst.state.starts:
        with open(inst.console_log, "a", encoding="ascii") as file:
            file.write(f"\n{watch.AGAIN}\n")
    has_agent = inst.state.boot == boot.DIRECT
    agent = (files.agent(inst), files.agent_port(inst)) if has_agent else None
    served, work = None, inst.work
    if work.tty or work.stdin_open:
        served = recorder.Served(inst.run_dir, files.stdin(inst), files.control(inst), work.tty, owned)
    guest = caller.Tied(inst.directory, files.pid_file(inst), domain.machine_uuid(inst.id)) if tied else None
    keep = runs.keep(inst)
    secret = held.in_memory(configure.secrets(inst.work, image)) if held.needed(inst.work) else -1
    try:
        asked = (secret, files.control(inst)) if secret >= 0 else None
        pid, go = recorder.start(streams, agent, served, keep, asked, guest)
    finally:
        for fd in (keep.held, secret):
            if fd >= 0:
                os.close(fd)
    try:
        if keep.held >= 0:
            held.record(inst, pid, keep.held)
        inst.state.supervisor_pid, inst.state.supervisor_start = pid, processes.start_time(pid)
        inst.journal.record_process(pid, inst.state.supervisor_start, "recorder")
        os.write(go, b"g")
    finally:
        os.close(go)
