"""What the host sees of an instance: its processes, their namespaces, its memory, its limits and its times."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from vmctl import backends, httpanswer, limits
from vmctl.backend import HasUsage
from vmctl.comparing.inside import NAMESPACES
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.instances.instance import Instance
from vmctl.linux import kernelfile
from vmctl.net.connect import connect
from vmctl.spec.units import format_seconds, format_size
from vmctl.spec.workload import HttpProbe

PAGE_BYTES, PAGE_S = 1 << 20, 10.0
MARK = "VMCTL_COMPARE"  # a variable of the workload, by which its processes are found in /proc of this host


def facts(inst: Instance) -> dict[str, str]:
    """Return what this host sees of a running instance, by name; what it cannot find out is missing."""
    found = {
        "host_process": _process(inst.state.pid),
        "host_processes": str(len(_processes(inst))),
        "host_sees_workload": " ".join(map(str, marked(inst.work.env.get(MARK, "")))),
        "host_namespaces": _own_namespaces(inst.state.pid),
        "host_memory": _memory(inst),
        "image": inst.state.image_digest or "",
        "accelerator": inst.state.accelerator or "",
        "start_s": _took(inst, "T1"),
        "ready_s": _took(inst, "T6") or _took(inst, "TS"),
        "page": _page(inst),
        **_granted(inst),
    }
    return {name: text for name, text in found.items() if text}


def marked(token: str) -> list[int]:
    """Return the processes of this host that have the mark with this value in their environment (proc(5), environ)."""
    found = []
    wanted = f"{MARK}={token}"
    for name in filter(str.isdigit, os.listdir("/proc")) if token else ():
        with suppress(OSError):  # it has ended, or is not ours
            if wanted in kernelfile.read(f"/proc/{name}/environ").split("\0"):
                found.append(int(name))
    return sorted(found)


def _process(pid: int | None) -> str:
    with suppress(OSError):
        return f"{kernelfile.read(f'/proc/{pid}/comm').strip()}, pid {pid}"
    return ""


def _processes(inst: Instance) -> list[int]:
    return backends.ability(backends.load(inst.state.mode), HasUsage).processes(inst)


def _own_namespaces(pid: int | None) -> str:
    """Return the kinds of namespaces in which the instance's process is not in the one of this process."""
    other = []
    for name in NAMESPACES:
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                other.append(name)
    return " ".join(other) or "none"


def _memory(inst: Instance) -> str:
    with suppress(VmctlError, OSError):
        found = footprint(inst)
        return format_size(found.pss_bytes) if found.pss_bytes is not None else ""
    return ""


def _granted(inst: Instance) -> dict[str, str]:
    found = limits.effective(inst)
    processors, memory = (found[name] for name in ("cpus", "memory_bytes"))
    return {
        "granted_processors": f"{processors['value']:g} ({processors['source']})",
        "granted_memory": f"{format_size(memory['value'])} ({memory['source']})",
    }


def _took(inst: Instance, last: str) -> str:
    seconds = inst.timeline.between_s("T0", last)
    return "" if seconds is None else format_seconds(seconds)


def _page(inst: Instance) -> str:
    """Return status and digest of the page of `ready: http`, "" without one."""
    probe = inst.work.ready.http if inst.work.ready else None
    if probe is None:
        return ""
    try:
        answer = _get(inst.state.address or "127.0.0.1", probe)
    except (OSError, VmctlError) as error:
        return f"no answer: {error}"
    body = answer.partition(b"\r\n\r\n")[2]
    return f"status {httpanswer.status(answer)}, sha256 {hashlib.sha256(body).hexdigest()[:12]}"


def _get(address: str, probe: HttpProbe) -> bytes:
    """Return the answer to a GET, up to PAGE_BYTES. Raises OSError."""
    answer = b""
    with connect(address, probe.port, PAGE_S) as connection:
        connection.sendall(httpanswer.request(address, probe.port, probe.path))
        while len(answer) < PAGE_BYTES:
            try:
                part = connection.recv(1 << 16)
            except TimeoutError:
                break
            if not part:
                break
            answer += part
    return answer
