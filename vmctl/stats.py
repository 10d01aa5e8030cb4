"""What instances use: processor, memory, network, disk and processes.

The memory is what the kernel counts for the control group: in mode vm that is QEMU with the guest's memory, as far as
the guest has touched it. What the guest itself counts as used is a separate number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from vmctl import backends
from vmctl.backend import HasUsage
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import consumption, kernelfile, memory
from vmctl.linux.cgroups import Cgroup
from vmctl.named import NamedTuple
from vmctl.survey import Seen

SAMPLE_S, LEAST_S = 0.2, 0.05  # between the two looks at the processor time, and after the first look at the last one
ANSWER_S, PATIENT_S = 0.15, 5.0  # for what guests report: of all, and of those that were asked for by name


class Usage(NamedTuple):
    """What one instance uses now, or has used since its start; None: this host does not count it."""

    name: str
    mode: str
    status: str
    cpu_percent: float | None  # of one processor
    cpu_s: float | None
    memory_bytes: int | None
    memory_limit_bytes: int
    memory_percent: float | None
    guest_memory_bytes: int | None  # as the guest counts it
    received_bytes: int | None
    sent_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    pids: int | None


class Sampler:
    """Looks at the same instances again and again; processor shares are those since the look before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}  # id -> time and processor seconds

    def look(self, found: Iterable[Seen], answer_s: float = ANSWER_S) -> list[Usage]:
        """Return the usage of running instances, sorted as they are given; a guest has `answer_s` to answer."""
        running = [seen for seen in found if seen.status in ("running", "paused") and seen.instance is not None]
        asked = {seen.name: _asked(seen) for seen in running}
        traffic = _traffic() if running else {}
        end_s = time.monotonic() + answer_s
        rows = []
        for seen in running:
            assert seen.instance is not None
            with suppress(VmctlError, OSError):  # it has just ended
                rows.append(self._usage(seen, seen.instance, traffic))
        return [
            row._replace(guest_memory_bytes=asked[row.name](max(0.0, end_s - time.monotonic())).get("memory_bytes"))
            for row in rows
        ]

    def begin(self, found: Iterable[Seen]) -> list[Seen]:
        """Look at the processor times only, for the first shares, wait a moment, and return the instances.

        `found` can be a generator: to find the next instance is then a part of the wait for those before.
        """
        begun_s, kept = time.monotonic(), []
        for seen in found:
            kept.append(seen)
            if seen.status == "running" and seen.instance is not None:
                with suppress(VmctlError, OSError):
                    self._share(seen.instance, _processor_s(seen.instance, _able(seen.instance).processes))
        time.sleep(max(LEAST_S, begun_s + SAMPLE_S - time.monotonic()))
        return kept

    def _usage(self, seen: Seen, inst: Instance, traffic: Mapping[str, tuple[int, int]]) -> Usage:
        able, cgroup = _able(inst), Cgroup(inst.cgroup)
        pids = able.processes(inst)
        used_s = _processor_s(inst, lambda _: pids)
        bytes_ = cgroup.memory_bytes()
        if bytes_ is None:
            bytes_ = memory.pss_by_role({"all": pids}).get("all")
        limit = inst.state.limits.get("memory_bytes") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        received, sent = traffic.get(f"vm{inst.id}", (None, None))
        read, written = consumption.disk_bytes(pids) or (None, None)
        return Usage(
            name=seen.name,
            mode=inst.state.mode,
            status=seen.status,
            cpu_percent=self._share(inst, used_s),
            cpu_s=used_s,
            memory_bytes=bytes_,
            memory_limit_bytes=limit,
            memory_percent=None if bytes_ is None else 100 * bytes_ / limit,
            guest_memory_bytes=None,
            received_bytes=received,
            sent_bytes=sent,
            read_bytes=read,
            written_bytes=written,
            pids=len(pids),
        )

    def _share(self, inst: Instance, used_s: float) -> float | None:
        now_s = time.monotonic()
        before = self._before.get(inst.id)
        self._before[inst.id] = (now_s, used_s)
        if before is None or now_s <= before[0]:
            return None
        return max(0.0, 100 * (used_s - before[1]) / (now_s - before[0]))


def _able(inst: Instance) -> HasUsage:
    return backends.ability(backends.load(inst.state.mode), HasUsage)


def _asked(seen: Seen) -> Callable[[float], Mapping[str, int]]:
    with suppress(VmctlError, OSError):
        assert seen.instance is not None
        if seen.status == "running":
            return _able(seen.instance).asked_inside(seen.instance)
    return lambda timeout_s: {}


def _processor_s(inst: Instance, pids: Callable[[Instance], list[int]]) -> float:
    used_s = Cgroup(inst.cgroup).processor_s()
    return consumption.processor_s(pids(inst)) if used_s is None else used_s


def _traffic() -> dict[str, tuple[int, int]]:
    """Return the bytes that each instance has received and sent, by the first ten letters of its port's name."""
    from vmctl.net import switch

    try:
        text = switch.inside(lambda: kernelfile.read("/proc/thread-self/net/dev"))
    except (VmctlError, OSError):  # no instance has a network
        return {}
    found: dict[str, tuple[int, int]] = {}
    for line in text.splitlines()[2:]:
        name, _, counters = line.strip().partition(":")
        numbers = counters.split()
        sent, received = int(numbers[0]), int(numbers[8])  # what the port receives, the instance has sent
        before = found.get(name[:10], (0, 0))  # one with several networks has a port in each
        found[name[:10]] = (before[0] + received, before[1] + sent)
    return found
