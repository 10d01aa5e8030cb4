"""The modes of a comparison have the same processors and memory, or the first lines mention that they have not."""

import pytest
from support.bench_results import SERVICE, finished, make, replaced

from bench import equal, export, machine, table
from bench.model import CONTROL
from bench.report import page
from vmctl import backends
from vmctl.spec.workload import Bytes, Resources, Workload

OF_A_GUEST = Resources(cpus=1.0, memory_bytes=Bytes(256 << 20))
WORK = Workload(name="w", image="tiny", command=("sleep", "1"))


def test_every_mode_gets_what_a_guest_has(guest_root):
    assert equal.granted(WORK, ["host", "container", "vm"], {}).resources == OF_A_GUEST


def test_what_the_workload_asks_for_is_kept(guest_root):
    asked = WORK._replace(resources=Resources(cpus=2.0, pids=9))
    assert equal.granted(asked, ["container", "vm"], {}).resources == asked.resources._replace(memory_bytes=256 << 20)
    both = WORK._replace(resources=Resources(cpus=2.0, memory_bytes=Bytes(128 << 20)))
    assert equal.granted(both, ["container", "vm"], {}) == both


def test_nothing_is_limited_without_a_guest_or_without_a_comparison(guest_root):
    assert equal.granted(WORK, ["host", "container"], {}) == WORK
    assert equal.granted(WORK, ["vm"], {}) == WORK


def test_nothing_is_limited_if_one_mode_cannot_be(guest_root, monkeypatch):
    """An ordinary user may have no control group for it: the measurement is made, and the report mentions it."""
    container = type(backends.load("container"))
    refuse = container.check
    monkeypatch.setattr(
        container, "check", lambda self, work: ["no"] if work.resources.memory_bytes else refuse(self, work)
    )
    assert equal.granted(WORK, ["container", "vm"], {}) == WORK


def with_resources(equalised, **resources):
    result = make(runs=3, faults=False)
    plan = replaced(result.plan, workload={**SERVICE, "resources": resources}, equalised=equalised)
    return finished(result, plan=plan)


@pytest.mark.parametrize(
    ("result", "sentence", "warned"),
    [
        (make(runs=3), "The modes had unequal processors and memory: the workload asks for none", True),
        (with_resources(False, cpus=1.0), "The modes had unequal memory", True),
        (
            with_resources(True, cpus=1.0, memory_bytes=256 << 20),
            "Every mode had 1 processor and 256.0 MiB of memory, as a guest has by default.",
            False,
        ),
        (
            with_resources(False, cpus=2.0, memory_bytes=128 << 20),
            "Every mode had 2 processors and 128.0 MiB of memory.",
            False,
        ),
    ],
)
def test_the_first_lines(result, sentence, warned):
    assert equal.sentence(result).startswith(sentence)
    assert equal.unequal(result) == warned
    assert next(table.notes(result)).startswith(sentence)
    assert export.markdown(result).splitlines()[2].startswith(f"**{sentence}")
    html = page.page(result)
    assert html.index(sentence) < html.index("<main")
    assert ("<strong>Unequal.</strong>" in html) == warned


def test_without_a_guest_there_is_nothing_to_mention():
    assert equal.sentence(make(runs=3, modes=("host", "container"))) == ""


@pytest.mark.parametrize(("share", "warned"), [(0.05, False), (0.6, True)])
def test_a_control_that_waits_is_a_busy_host(share, warned):
    """The load average needs a minute to rise: processes that began just before are not in it."""
    result = make(runs=3, faults=False)

    def waited(one):
        values = {**one.values, "cpu_s": one.values["work_s"] * (1 - share)} if one.kind == CONTROL else one.values
        return replaced(one, values=values)

    busy = finished(result, samples=tuple(map(waited, result.samples)))
    assert machine.busy(busy).startswith("The host was busy: the control waited 60% of its time") == warned
    assert bool(machine.busy(busy)) == warned
