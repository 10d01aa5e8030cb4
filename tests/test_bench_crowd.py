"""Several instances at once: the cost of one more against a known truth, simultaneous starts, and limits."""

import json
import os
import subprocess
import sys

import pytest
from support.commands import free_port, wait_for

from bench.probes import Request, crowd, ladder, storm
from bench.statistics import slope
from vmctl import backends
from vmctl.errors import UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.linux import processes
from vmctl.spec.workload import File, HttpProbe, Ready, Resources, Volume, Workload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")

MIB = 1024**2
HELD_BYTES = 128 * MIB
HOLD = """
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
int main(int argc, char **argv) {
    size_t size = strtoull(argv[1], 0, 10);
    if (size) {
        char *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(memory, 1, size);
    }
    write(1, "held\\n", 5);
    for (;;) pause();
}
"""
IDLE = Workload(name="idle", image="tiny", command=("sh", "-c", "echo up; sleep 1000"), ready=Ready(log="up"))
PORT = free_port()  # a port of the host in mode host
PAGE = Workload(
    name="page",
    image="tiny",
    command=("httpd", "-f", "-p", str(PORT), "-h", "/srv"),
    files=(File("/srv/index.html", "here"),),
    ready=Ready(http=HttpProbe(PORT)),
)


@pytest.fixture
def at_rest(guest_root):
    """Check that no instance is left at the end."""
    yield
    assert instance.names() == []


@pytest.fixture
def nothing_left(at_rest, monkeypatch):
    """The same for tests that do not depend on the host's memory: they do not wait until it is flat."""
    monkeypatch.setattr(ladder, "SETTLE_S", 0.0)


@pytest.fixture(scope="module")
def holder(tmp_path_factory):
    """A folder with a static program that takes a given number of bytes."""
    folder = tmp_path_factory.mktemp("holder")
    (folder / "hold.c").write_text(HOLD)
    subprocess.run(["cc", "-O1", "-static", "-o", str(folder / "hold"), str(folder / "hold.c")], check=True)
    return str(folder)


def climb(work, mode="container", instances=3):
    return ladder.observe(Request(ladder.prepare(work), f"test-{work.name}", mode, instances=instances))


def storm_of(work, mode="container", instances=3):
    return storm.observe(Request(storm.prepare(work), f"test-{work.name}", mode, instances=instances))


def holding(holder, size):
    command = ("/held/hold", str(size))
    return Workload("holding", "tiny", command, volumes=(Volume(holder, "/held", True),), ready=Ready(log="held"))


def points(seen, key):
    question = next(one for one in ladder.QUESTIONS if one.key == key)
    return question.points(seen)


@pytest.mark.alone
def test_one_more_instance_costs_what_it_holds(at_rest, holder):
    """This measures the whole host, on which others may be working: hence several tries for a tolerance of 20 %."""
    for _ in range(8):
        some, none = (climb(holding(holder, size), instances=3) for size in (HELD_BYTES, 0))
        held, base = (slope([points(one, "memory.marginal_bytes")]) for one in (some, none))
        if abs(held - base - HELD_BYTES) < HELD_BYTES / 5:
            return
    pytest.fail(f"{held / MIB} MiB against {base / MIB} MiB")


def test_disk_of_one_more_instance_leaves_out_what_they_share(nothing_left):
    written = ("sh", "-c", "dd if=/dev/urandom of=/mine bs=1M count=8; sync; echo up; sleep 1000")
    some, none = (climb(IDLE._replace(command=command)) for command in (written, IDLE.command))
    rise = [slope([points(one, "disk.marginal_bytes")]) for one in (some, none)]
    assert abs(rise[0] - rise[1] - 8 * MIB) < MIB / 4
    shared = backends.load("container").reads(IDLE)[0]
    assert some.series["disk_bytes"][0] == os.stat(shared).st_blocks * 512
    assert rise[1] < some.series["disk_bytes"][0]


def test_a_ladder_reports_every_step_and_leaves_nothing(nothing_left):
    seen = climb(PAGE)
    assert seen.values["instances"] == 3
    assert {name: len(values) for name, values in seen.series.items()} == {
        "available_bytes": 4,
        "disk_bytes": 4,
        "start_s": 3,
    }
    assert seen.values["last_start_s"] == seen.series["start_s"][-1] > 0
    assert "stopped" not in seen.texts
    assert_receipts(seen, 3)


def assert_receipts(seen, count):
    """Check that the sample has the receipt of each instance: this kernel, and namespaces that no other one has."""
    found = json.loads(seen.texts["ran"])
    assert [one["boot_id"] for one in found] == [processes.boot_id()] * count
    assert len({one["namespaces"]["pid"] for one in found}) == count


@pytest.mark.parametrize("probe", [ladder, storm])
def test_instances_that_run_elsewhere_than_their_mode_promises_are_a_failure(nothing_left, monkeypatch, probe):
    """As if the mode had a kernel for each; the processes that start them do not know."""
    kind = type(backends.load("container"))
    monkeypatch.setattr(kind, "features", kind.features._replace(own_kernel=True))
    with pytest.raises(VmctlError, match="ran elsewhere than mode container promises"):
        probe.observe(Request(IDLE, "test-elsewhere", "container", instances=2))


def test_a_ladder_whose_second_instance_cannot_start_keeps_the_reason(nothing_left, tmp_path):
    only_one = ("sh", "-c", "mkdir /both/taken || exit 9; echo up; sleep 1000")
    seen = climb(IDLE._replace(command=only_one, volumes=(Volume(str(tmp_path), "/both"),)))
    assert seen.values["instances"] == 1
    assert len(seen.series["available_bytes"]) == 2
    assert seen.texts["stopped"].startswith("before instance 2: ")
    assert "code 9" in seen.texts["stopped"]


def test_a_ladder_without_a_first_step_is_a_failure(nothing_left):
    with pytest.raises(VmctlError, match="code 9"):
        climb(IDLE._replace(command=("sh", "-c", "exit 9")))
    with pytest.raises(VmctlError, match="needs a workload that keeps running"):
        climb(Workload("batch", "tiny", ("echo", "done")))


@pytest.mark.alone
def test_the_reserve_of_the_host_stops_a_ladder_and_a_storm(nothing_left, monkeypatch):
    memory = crowd.host_memory()
    monkeypatch.setattr(crowd, "RESERVE_SHARE", (memory.available - 500 * MIB) / memory.total)
    with pytest.raises(UnavailableError, match="have to stay free"):
        storm_of(IDLE._replace(resources=Resources(memory_bytes=1024 * MIB)))
    monkeypatch.setattr(crowd, "RESERVE_SHARE", 1.0)
    with pytest.raises(VmctlError, match="have to stay free"):
        climb(IDLE)


def test_a_port_of_the_host_is_there_only_once(nothing_left):
    """Otherwise the first instance would answer for all of them."""
    shared = [mode for mode in backends.modes() if not backends.load(mode).features.own_network]
    assert shared
    for mode in shared:
        assert f"port {PORT} only once" in climb(PAGE, mode).texts["stopped"]
        with pytest.raises(UnavailableError, match=f"port {PORT} only once"):
            storm_of(PAGE, mode)
        assert storm_of(IDLE, mode).values["last_s"] > 0


def test_a_storm_gets_all_ready(nothing_left):
    seen = storm_of(PAGE)
    first, middle, last = seen.series["ready_s"]
    assert 0 < first <= middle <= last
    assert (seen.values["first_s"], seen.values["median_s"], seen.values["last_s"]) == (first, middle, last)
    assert_receipts(seen, 3)


def test_a_warm_up_is_one_instance(nothing_left):
    for probe in (ladder, storm):
        seen = probe.observe(Request(PAGE, "test-warm", "container", look=True, instances=3))
        assert len(seen.series["start_s" if probe is ladder else "ready_s"]) == 1


def test_a_storm_waits_as_long_as_the_workload_takes(nothing_left):
    seen = storm_of(IDLE._replace(command=("sh", "-c", "sleep 0.5; echo up; sleep 1000")))
    assert seen.values["first_s"] >= 0.5


def test_a_storm_in_which_one_fails_is_a_failure_with_its_reason(nothing_left, tmp_path):
    only_two = "mkdir /both/one || mkdir /both/two || exit 9; echo up; sleep 1000"
    with pytest.raises(VmctlError, match=r"2 of 3 got ready: .*code 9"):
        storm_of(IDLE._replace(command=("sh", "-c", only_two), volumes=(Volume(str(tmp_path), "/both"),)))


def test_whoever_starts_one_ends_with_who_asked(nothing_left):
    """A worker may be killed at any moment; its starts must not continue during the removal."""
    script = (
        "import os, sys\n"
        "from bench.probes import crowd\n"
        "from vmctl.spec.workload import Workload\n"
        "starter = crowd.Starter(Workload('never', 'tiny', ('sleep', '1000')), 'container', {})\n"
        "starter.wait()\n"
        "os.write(1, str(starter.pid).encode())\n"
        "os._exit(9)\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).stdout)
    wait_for(lambda: not processes.alive(pid, processes.start_time(pid)))


@pytest.mark.long
def test_two_guests_one_after_the_other(nothing_left):
    mode = next(mode for mode in backends.modes() if backends.load(mode).features.own_kernel)
    seen = climb(PAGE, mode, instances=2)
    assert seen.values["instances"] == 2, seen.texts
    assert len(seen.series["start_s"]) == 2
    available = seen.series["available_bytes"]
    assert available[0] - available[2] > 2 * 32 * MIB  # a guest's kernel alone needs that
