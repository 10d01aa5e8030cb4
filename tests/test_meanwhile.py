"""The report of a failed test names the tests that ran at the same time."""

import os
import subprocess
import time

from support import meanwhile


def test_tests_of_another_process(monkeypatch, tmp_path):
    monkeypatch.setattr(meanwhile, "_FILES", f"{tmp_path}/")
    now = time.monotonic()
    with subprocess.Popen(["sleep", "1000"]) as other:
        lines = f"{now - 30} tests/a.py::before\n{now - 20} tests/a.py::test[a b]\n{now - 5} tests/a.py::last\n"
        for pid in (other.pid, os.getpid(), 4194305):  # no process has this one (proc(5), pid_max)
            (tmp_path / str(pid)).write_text(lines)
        found = meanwhile.overlapping(now - 10)
        other.kill()
    assert found == ["tests/a.py::test[a b]", "tests/a.py::last"]
    assert not (tmp_path / "4194305").exists()
