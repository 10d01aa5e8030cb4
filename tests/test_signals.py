"""Signals that `run` gets: the first is for the workload, and nothing keeps `run` for ever, in every mode."""

import os
import signal
import subprocess
import sys

import pytest
from support.commands import passes_signals_on, start

from vmctl.linux import stdio

RUN = {"container": ("--network", "none"), "host": ("--network", "host"), "vm": ("--network", "none")}
QUICK = "import sys; from vmctl.linux import stdio; stdio.GRACE_S = 1; from vmctl.cli import main; sys.exit(main())"

MOMENTS = """
import os, signal, subprocess, sys
from containers.attend import wait_for_end
from vmctl.linux.relay import Relay
from vmctl.linux.stdio import signals_to, woken

wait = {"plain": wait_for_end, "relay": Relay({}, None).run}[sys.argv[1]]
for delay_us in range(1, 400):
    with subprocess.Popen(["sleep", "1000"]) as child, woken() as signals, signals_to(lambda _: child.kill()):
        signal.setitimer(signal.ITIMER_REAL, delay_us / 1e6)
        wait(child.pid, signals)
"""


def running(mode, script, *options):
    """Start a workload that writes a line once it runs."""
    return attached(start("run", "--mode", mode, *RUN[mode], *options, "tiny", "--", "sh", "-c", script))


def attached(process):
    """Return the process once it passes signals on; those before end the start itself."""
    assert process.stdout.readline() == b"ready\n"
    passes_signals_on(process.pid)
    return process


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("mode", ["container", "host"])
def test_a_signal_without_a_handler_ends_the_workload(mode, signum):
    """The kernel would drop it for the first process of a container. No shell, which catches SIGINT until its exec."""
    process = start("run", "--mode", mode, *RUN[mode], "tiny", "--", "cat")
    process.stdin.write(b"ready\n")
    process.stdin.flush()
    attached(process).send_signal(signum)
    assert process.wait(60) == 128 + signum


@pytest.mark.parametrize("way", ["plain", "relay"])
def test_a_signal_just_before_the_wait_is_not_missed(way):
    """Python's handler runs between two instructions: no call may block between signal and handler."""
    subprocess.run([sys.executable, "-c", MOMENTS, way], check=True, timeout=60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_the_second_signal_kills(mode):
    process = running(mode, "trap 'echo again' TERM; echo ready; while :; do sleep 0.1; done")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"again\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGKILL


@pytest.mark.parametrize("mode", ["container", "host"])
def test_a_workload_does_not_outlive_its_terminal(mode):
    words = ["run", "--mode", mode, *RUN[mode], "tiny", "--", "sh", "-c", "trap '' HUP; echo ready; sleep 1000"]
    process = attached(subprocess.Popen([sys.executable, "-c", QUICK, *words], stdout=subprocess.PIPE))
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGKILL


def test_what_the_caller_ignores_is_ignored():
    words = ["run", "--network", "none", "tiny", "--", "sh", "-c", "echo ready; read -r line; echo $line"]
    process = attached(start(*words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)))
    process.send_signal(signal.SIGHUP)
    assert process.communicate(b"still there\n", 60)[0] == b"still there\n"
    assert process.returncode == 0


def test_quit_does_not_count():
    """Programs report on it, and go on."""
    sent = []
    with stdio.signals_to(sent.append):
        for signum in (signal.SIGQUIT, signal.SIGQUIT, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
            os.kill(os.getpid(), signum)
    assert sent == [signal.SIGQUIT, signal.SIGQUIT, signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL]
