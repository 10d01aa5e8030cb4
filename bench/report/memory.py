"""The chart of one idle instance's memory: a bar per mode, with its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.formatting import quantity
from bench.model import Result
from bench.report import drawing, lanes, words
from bench.report.charts import Chart
from bench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORKLOAD, SUPERVISOR, QEMU, GUEST, REST = (
    "the workload",
    "the supervisor",
    "QEMU itself",
    "the guest's memory",
    "other processes",
)


def chart(result: Result) -> Chart | None:
    """Return the chart, None if the memory of one instance was not measured in any mode."""
    found = {mode: parts(result, mode) for mode in result.plan.modes}
    known = {mode: sizes for mode, sizes in found.items() if sizes}
    if not known:
        return None
    names = [name for name in (WORKLOAD, SUPERVISOR, QEMU, GUEST, REST) if any(name in one for one in known.values())]
    most = max(sum(sizes.values()) for sizes in known.values())

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlim(0, most * 1.02)
        for height, (mode, sizes) in enumerate(known.items()):
            shown = [(sizes.get(name, 0.0), quantity(sizes.get(name, 0.0), "bytes")) for name in names]
            lanes.bar(axes, (height, result.plan.modes.index(mode)), shown, most)
            lanes.name(axes, words.label(result, mode), quantity(sum(sizes.values()), "bytes"), height - 0.3)
        lanes.scale(axes, "x", "bytes", log=False)
        lanes.finish(figure, axes, len(known), list(enumerate(names)))

    title = "Memory of one idle instance"
    text = "PSS, medians. What one more instance costs can be less, since instances share pages: see below."
    return Chart(
        "memory", title, text, drawing.svg("memory", title, 1.7 + 0.8 * len(known), draw), _table(result, known, names)
    )


def parts(result: Result, mode: str) -> dict[str, float]:
    """Return the parts of one idle instance's PSS in bytes, by name; nothing if it is not known.

    QEMU itself is what is resident of it, without the guest's memory.
    """
    keys = {name: f"memory.{name}_bytes" for name in ("pss", "pss_workload", "pss_supervisor", "pss_qemu", "vmm")}
    one = {name: figure.value for name, key in keys.items() if (figure := words.figure(result, key, mode))}
    whole, qemu, itself = one.get("pss"), one.get("pss_qemu"), one.get("vmm")
    if whole is None:
        return {}
    found = {WORKLOAD: one.get("pss_workload"), SUPERVISOR: one.get("pss_supervisor")}
    if qemu is not None and itself is not None and qemu > itself:
        found = {QEMU: itself, GUEST: qemu - itself}
    sizes = {name: size for name, size in found.items() if size is not None}
    rest = whole - sum(sizes.values())
    return {**sizes, REST: rest} if rest > 0.01 * whole else sizes


def _table(result: Result, known: dict[str, dict[str, float]], names: list[str]) -> Table:
    cells = tuple(
        (
            words.label(result, mode),
            *(quantity(one.get(name), "bytes") for name in names),
            quantity(sum(one.values()), "bytes"),
        )
        for mode, one in known.items()
    )
    return Table("Parts of one idle instance's memory, PSS", ("mode", *names, "total"), cells)
