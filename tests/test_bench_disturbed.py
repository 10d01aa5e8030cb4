"""A measurement on a host that is disturbed for real: by a neighbour that takes and frees 600 MB, and two that spin."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from support.commands import ok, vmctl

from bench import result as results
from vmctl.linux import memory

pytestmark = pytest.mark.timeout(900)
TAKEN_BYTES = 600 << 20
LIMIT_S = 600  # after which a neighbour ends, also if the test does not end it
SPIN = f"import time\nend = time.time() + {LIMIT_S}\nwhile time.time() < end: pass"
TAKE = f"""import time
end = time.time() + {LIMIT_S}
while time.time() < end:
    taken = bytearray({TAKEN_BYTES})
    taken[::4096] = b"x" * len(taken[::4096])
    time.sleep(0.35)
    del taken
    time.sleep(0.25)
"""
WORK = {
    "name": "web",
    "image": "tiny",
    "command": ["httpd", "-f", "-p", "8000", "-h", "/etc"],
    "ready": {"tcp": 8000},
}


@contextmanager
def neighbours():
    """Disturb the host by three processes, which are ended by their ids."""
    running = [subprocess.Popen([sys.executable, "-I", "-S", "-c", text]) for text in (SPIN, SPIN, TAKE)]
    try:
        time.sleep(1)
        assert [one.poll() for one in running] == [None] * 3
        yield
        assert [one.poll() for one in running] == [None] * 3, "a neighbour has ended before the measurement"
    finally:
        for one in running:
            one.send_signal(signal.SIGKILL)
            one.wait()


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        return memory.meminfo(file.read())["MemAvailable"]


def impossible(result):
    """Return what cannot be true of a result: figures, ratios, orders, and texts of the reports."""
    found = [f"{one.key} {one.mode}: {one.value}" for one in result.figures if one.value is not None and one.value < 0]
    found += [f"{one.key} {one.mode}: {one.ratio}" for one in result.ratios if not 0 < one.ratio < 100_000]
    for one in result.figures:
        ends = [end for end in (one.low, one.value, one.high) if end is not None]
        found += [f"{one.key} {one.mode}: {ends}"] * (ends != sorted(ends))
    return found


@pytest.mark.parametrize("modes", ["host,container", pytest.param("host,container,vm", marks=pytest.mark.long)])
@pytest.mark.skipif(available_bytes() < 3 * TAKEN_BYTES, reason="the neighbour would take the memory of the tests")
def test_a_disturbed_host_gives_no_impossible_figure(guest_root, tmp_path, modes):
    path, folder = tmp_path / "web.yaml", tmp_path / "out"
    path.write_text(json.dumps(WORK))
    with neighbours():
        done = vmctl(
            *("bench", str(path), "--modes", modes, "--runs", "3", "--instances", "3"),
            *("--metrics", "boot,memory", "--out", str(folder)),
            timeout_s=LIMIT_S,
        )
    assert done.code == 0, done
    result = results.read(str(folder))
    assert [one.error for one in result.samples if one.error] == []
    assert impossible(result) == []
    ok("bench", "verify", str(folder))
    warning = "The host was busy: "
    report = done.err.partition("\nweb: image tiny")[2]  # progress is before it
    assert report.partition("\n\n")[2].startswith(warning), done.err
    for name in ("report.md", "report.html"):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            text = file.read()
        start = text.partition("<main" if name.endswith("html") else "\n## ")[0]
        assert warning in start, start
        plain = re.sub(r"<svg.*?</svg>|<script.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
        assert not re.search(r"(?<![\w-])-\d[\d.]* ?[KMG]iB(?![^(]*other programs)", plain), name
        if "not measurable here" in plain:
            assert "so other programs moved it" in plain or "the processes of one instance use" in plain
