"""What a workload takes without end is bounded, also if it asks for no limit."""

import time

import pytest
from support.attack_table import callers, modes
from support.attacks import Cell

pytestmark = pytest.mark.timeout(600)

BOMB = "exec 2>/dev/null; n=0; while [ $n -lt 6000 ]; do sleep 1000 >/dev/null </dev/null & n=$((n + 1)); done"


@pytest.fixture(scope="module")
def cell(caller, mode):
    cell = Cell(caller, mode, init=False)
    yield cell
    cell.end()


@pytest.mark.attack("makes processes without end, with no limit in its workload file")
@modes("container")  # a guest of 256 MiB is full before
@callers("root")  # a user without control groups is warned: no limit
def test_fork_bomb(cell):
    before = _processes()
    cell.shell(BOMB, timeout_s=300)
    assert _processes() - before < 4200
    assert cell.caller.inspect(cell.name)["limits"]["granted"]["pids"] == 4096


def _processes():
    with open("/proc/loadavg", encoding="ascii") as file:
        return int(file.read().split()[3].partition("/")[2])


@pytest.mark.attack("fills the disk of the host through its writable layer, which has a size in its workload file")
@modes("container", "host")
def test_full_writable_layer(caller, guest_root, mode):
    script = "dd if=/dev/zero of=/fill bs=1M count=100; cp /fill /more; du -m / -x -d 0"
    words = ("run", "--mode", mode, "--disk", "64M", "tiny", "--", "sh", "-c", f"{script}")
    if caller.name != "root":
        assert "which only root has" in caller.refused(*words)  # never started without the limit
        return
    seen = caller.vmctl(*words)
    assert "No space left" in seen.err + seen.out
    assert int(seen.out.split()[0]) <= 70


@pytest.mark.attack("keeps the host busy with a regular expression that its output makes exponential", mode="any")
def test_exponential_match(caller):
    script = "line=$(printf %060d 0 | tr 0 a); echo $line!; sleep 1000"  # one write: a ready pattern sees half lines
    path = caller.write(
        "slow.yaml", f"image: tiny\ncommand: [sh, -c, '{script}']\nready: {{log: '(a+)+$', timeout: 2s}}\n"
    )
    begin = time.monotonic()
    caller.refused("up", path, code=124)
    assert time.monotonic() - begin < 30
