"""The samples of memory in use, against a process that takes exactly 64 MiB and frees them."""

import os

import pytest

from bench.model import Sample
from bench.probes import Request, load, tool
from vmctl import backends
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.spec.workload import Resources, Workload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")

MIB = 1024**2
SHARED_BYTES = MIB // 2  # page tables, and pages of programs, whose PSS depends on the other processes that map them
MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
WORK = Workload(name="any", image="tiny", command=("httpd", "-f"))


def take(mode, work=WORK, **changes):
    name = f"bench-{mode}"
    return load.observe(Request(load.prepare(work)._replace(name=name, **changes), name, mode))


def answers(seen):
    sample = Sample(kind="load", mode="", round=1, started=0.0, **seen._asdict())
    return {one.key: one.values(sample) for one in load.QUESTIONS}


@EACH_QUICK_MODE
def test_64_mib_are_taken_and_come_back(guest_root, mode):
    seen = take(mode)
    values = seen.values
    for name in ("pss_bytes", "pss_workload_bytes", "cgroup_anon_bytes"):
        taken = values[f"loaded_{name}"] - values[f"idle_{name}"]
        assert taken == pytest.approx(64 * MIB, abs=SHARED_BYTES), name
        assert values[f"freed_{name}"] == pytest.approx(values[f"idle_{name}"], abs=SHARED_BYTES), name
    assert values["loaded_pss_supervisor_bytes"] == pytest.approx(values["idle_pss_supervisor_bytes"], abs=MIB)
    found = answers(seen)
    assert found["memory.taken_share"][0] == pytest.approx(1, abs=0.02)
    assert found["memory.given_back_share"][0] == pytest.approx(1, abs=0.02)
    assert "working_set" not in seen.texts
    assert instance.names() == []


@EACH_QUICK_MODE
def test_less_is_taken_of_a_small_memory_and_the_texts_mention_it(guest_root, mode):
    seen = take(mode, WORK._replace(resources=Resources(memory_bytes=40 * MIB)))
    assert seen.values["set_bytes"] == 10 * MIB
    taken = seen.values["loaded_pss_bytes"] - seen.values["idle_pss_bytes"]
    assert taken == pytest.approx(10 * MIB, abs=SHARED_BYTES)
    assert "a quarter of the memory limit" in seen.texts["working_set"]


@pytest.mark.long
def test_a_guest_takes_it_of_the_host_and_reports_what_is_free_again(guest_root):
    (mode,) = set(MODES) - set(QUICK)
    seen = take(mode)
    values = seen.values
    taken = values["loaded_cgroup_bytes"] - values["idle_cgroup_bytes"]
    assert 16 * MIB < taken < 80 * MIB  # the guest already had some of it
    assert values["freed_cgroup_bytes"] < values["loaded_cgroup_bytes"] - 16 * MIB
    assert values["loaded_vmm_bytes"] - values["idle_vmm_bytes"] < 16 * MIB  # the memory is the guest's, not QEMU's own
    assert answers(seen)["memory.given_back_share"][0] > 0.25
    assert instance.names() == []


@EACH_QUICK_MODE
def test_a_load_above_the_limit_is_a_failure_with_its_reason(guest_root, mode):
    small = Resources(memory_bytes=8 * MIB)
    with pytest.raises(VmctlError, match=r"ended with code 137 \(oom\)"):
        take(mode, command=(tool.PATH, "hold", str(64 * MIB)), resources=small)
    assert instance.names() == []


def test_a_sample_without_all_its_states_has_no_share():
    sample = Sample(kind="load", mode="", round=1, started=0.0, values={"idle_cgroup_bytes": 1.0, "set_bytes": 1.0})
    assert [one.values(sample) for one in load.QUESTIONS] == [[], [], [], []]
