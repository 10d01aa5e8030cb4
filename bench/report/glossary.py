"""The terms of a report, each in one or two sentences. docs/bench.md has the whole method."""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """A term and what it means here."""

    name: str
    meaning: str


TERMS = (
    Term("Round", "One start of every mode, in random order. The first round warms the caches up and does not count."),
    Term(
        "95 % interval",
        "If the whole measurement were repeated on this machine, 95 of 100 such intervals would contain the true"
        " median.",
    ),
    Term("Slope", "What one more instance costs: the inclination of a line through 1, 2, ... N instances."),
    Term(
        "PSS",
        "Proportional set size: the memory of processes, where a page that several processes share is divided among"
        " them. It does not include the kernel's memory.",
    ),
    Term("cgroup", "Control group: the kernel's account of what a set of processes uses, and its limits."),
    Term("Supervisor", "The process of vmctl that waits for a workload's end and writes its logs."),
    Term("KVM", "The processor runs the guest's instructions itself."),
    Term("TCG", "QEMU translates the guest's instructions by software, which is many times slower than KVM."),
    Term("T0", "The engine asks for the start."),
    Term("T1", "The process exists: the container's or plain process, or QEMU."),
    Term("T4", "Our init runs. In a guest, firmware and kernel are done."),
    Term("T5", "The first byte of the workload's output."),
    Term("T6", "The first correct answer to the probe of the workload's `ready`."),
)
