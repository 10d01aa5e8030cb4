"""The samples of the disk, with a program that writes, changes and deletes known amounts, and syncs."""

import os

import pytest

from bench.model import Sample
from bench.probes import Request, writes
from vmctl import backends
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.spec.workload import Workload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")

MIB = 1024**2
MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)


@pytest.fixture(scope="module")
def work(guest_root):
    return writes.prepare(Workload(name="any", image="tiny", command=("httpd", "-f")))


def take(work, mode, **changes):
    name = f"bench-{mode}"
    return writes.observe(Request(work._replace(name=name, **changes), name, mode))


def answers(seen):
    sample = Sample(kind="writes", mode="", round=1, started=0.0, **seen._asdict())
    return {one.key: one.values(sample) for one in writes.QUESTIONS}


@EACH_QUICK_MODE
def test_each_change_takes_what_it_must(work, mode):
    seen = take(work, mode)
    values = seen.values
    assert 0 < values["created_bytes"] < MIB
    assert 50 * MIB <= values["written_bytes"] < 51 * MIB
    assert 100 * MIB <= values["copied_bytes"] < 101 * MIB
    assert 0 <= values["whiteout_bytes"] < MIB  # 10 MiB are hidden, but nothing shrinks
    assert 50 * MIB <= values["deleted_bytes"] < 51 * MIB
    assert answers(seen)["disk.trimmed_bytes"] == []  # it would trim a file system of the host
    assert instance.names() == []


def test_a_guest_gives_back_only_what_it_trims(work):
    (mode,) = set(MODES) - set(QUICK)
    seen = take(work, mode)
    values = seen.values
    assert 50 * MIB <= values["written_bytes"] < 54 * MIB  # plus the journal and tables of its own file system
    assert 100 * MIB <= values["copied_bytes"] < 104 * MIB
    assert abs(values["whiteout_bytes"]) < MIB
    assert abs(values["deleted_bytes"]) < MIB
    assert "trim" not in seen.texts
    assert values["trimmed_bytes"] > 49 * MIB
    assert instance.names() == []


def test_a_guest_that_cannot_trim_has_a_reason(work):
    (mode,) = set(MODES) - set(QUICK)
    seen = take(
        work, mode, command=(*work.command[: -len(writes.MOUNTS)], "/")
    )  # an overlay, which cannot be trimmed be trimmed
    assert "trimmed_bytes" not in seen.values
    assert seen.texts["trim"].startswith("refused: ")


@EACH_QUICK_MODE
def test_a_program_without_the_right_to_write_is_a_failure_with_its_reason(work, mode):
    with pytest.raises(VmctlError, match="ended with code 1") as caught:
        take(work, mode, user="65534:65534")
    assert "/vmctl-written: Permission denied" in caught.value.detail
    assert instance.names() == []


def test_the_random_file_is_always_the_same_and_does_not_compress(guest_root, own_root):
    import zlib

    path = writes.random_file(2 * MIB)
    with open(path, "rb") as file:
        first = file.read()
    os.unlink(path)
    with open(writes.random_file(2 * MIB), "rb") as file:
        assert file.read() == first
    assert len(zlib.compress(first)) > 2 * MIB
