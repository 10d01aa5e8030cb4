"""From inside: what belongs to the host is neither seen nor reached."""

import os

import pytest

pytestmark = pytest.mark.timeout(600)


@pytest.mark.attack("finds and kills a process of the host, from inside and as root")
def test_process_of_the_host(cell, canary):
    seen = cell.shell("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/environ; tr '\\0' ' ' < $p/cmdline; done 2>&1")
    assert "sleep 100000" in seen.out  # its own
    assert "sleep 100001" not in seen.out
    if cell.mode == "container":  # in a guest these are pids of its own processes
        cell.shell(f"kill -9 {canary.process.pid} {os.getpid()}")
    canary.check(seen)


@pytest.mark.attack(
    "reads a secret file of the host by its path, through /proc/*/root, /proc/*/cwd and open descriptors"
)
def test_file_of_the_host(cell, canary):
    seen = cell.shell(f"""
        cat {canary.path}
        for p in /proc/[0-9]*; do
            cat $p/root{canary.path} $p/cwd{canary.path} $p/cwd/../../../../../../..{canary.path}
            for fd in $p/fd/*; do cat $fd{canary.path} $fd/../../../../../../..{canary.path}; done
        done 2>&1""")
    canary.check(seen)


@pytest.mark.attack("connects to a service of the host that listens on the host's loopback only")
def test_loopback_of_the_host(cell, canary):
    gateway = "$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')"
    for address in ("127.0.0.1", "0.0.0.0", gateway, "10.77.0.1"):
        cell.shell(f"echo | timeout 3 nc -w 2 {address} {canary.port}")
    canary.check()
