"""Contenders that start a container: ours, the usual runtimes, and a minimal C program (the kernel's floor)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from bench.peers.command import time_command
from bench.peers.root import Root, overlay_options
from vmctl.errors import UnavailableError
from vmctl.programs import module, run, which
from vmctl.spec.workload import Workload

Contender = Callable[[], float]  # returns seconds; raises VmctlError

PROGRAM = ("/bin/echo", "hello")
OURS_ATTACHED, OURS_DETACHED = "vmctl, attached", "vmctl, detached"
RUNC, FLOOR, SAME_CALLS = "runc run", "kernel's floor", "kernel's floor, our mounts"
VMCTL = os.path.join(os.path.dirname(sys.executable), "vmctl")
VMCTL_RUN, HELP, PS, PYTHON = "vmctl run", "vmctl --help", "vmctl ps", "python -c pass"
_FLOOR_SOURCE = os.path.join(os.path.dirname(__file__), "floor.c")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_RUNTIMES = {RUNC: ("runc",), "crun run": ("crun", "--cgroup-manager=disabled")}


def workload() -> Workload:
    """Return the workload to start: a program that writes at once, in a container without a network."""
    return Workload(name="peers", image="tiny", command=PROGRAM, network="none")


def contenders(root: Root) -> dict[str, Contender]:
    """Return everything that can start the program in namespaces, by name."""
    floor = _compile(root.folder)
    return {
        OURS_ATTACHED: lambda: ours("container", "attached"),
        OURS_DETACHED: lambda: ours("container", "detached"),
        **{name: _to_first_byte(argv) for name, argv in others(root)},
        FLOOR: lambda: _floor(floor, root, ()),
        SAME_CALLS: lambda: _floor(floor, root, root.steps),
    }


def ours(mode: str, how: str) -> float:
    """Return the seconds from T0 to the workload's first byte, through our library."""
    work = workload()._replace(name=f"peers-{os.urandom(3).hex()}")
    timing = time_command(module("bench.peers.starter", mode, how, work.to_json()))
    marks_ns = json.loads(timing.errors.splitlines()[-1])
    first_byte_ns = marks_ns.get("T5") or timing.first_byte_ns
    return float(first_byte_ns - marks_ns["T0"]) / 1e9


def commands(root: Root) -> dict[str, Contender]:
    """Return the commands that run one program to its end, timed to that end."""
    name, argv = next(others(root))
    return {
        VMCTL_RUN: _to_exit([VMCTL, "run", "--mode", "container", "--network", "none", "tiny", "--", *PROGRAM]),
        name: _to_exit(argv),
    }


def interpreters() -> dict[str, Contender]:
    """Return vmctl commands that start nothing, and the interpreter that all of them need."""
    return {
        HELP: _to_exit([VMCTL, "--help"]),
        PS: _to_exit([VMCTL, "ps"]),
        PYTHON: _to_exit([sys.executable, "-c", "pass"]),
    }


def _to_exit(argv: list[str]) -> Contender:
    return lambda: time_command(argv).exit_s()


def _to_first_byte(argv: list[str]) -> Contender:
    return lambda: time_command(argv).first_byte_s()


def others(root: Root) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each other contender and its command that starts the program; runc is the first."""
    bundle = _bundle(root)
    for name, argv in _RUNTIMES.items():
        yield name, [*argv, "run", "--bundle", bundle, f"peers-{argv[0]}"]
    plain = ("--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off")
    nspawn = ["systemd-nspawn", "--quiet", "--private-network", *plain, "--directory", root.path, "--", *PROGRAM]
    yield "systemd-nspawn", nspawn
    unshare = [f"--unshare-{what}" for what in ("pid", "net", "ipc", "uts", "cgroup")]
    yield "bwrap", ["bwrap", *unshare, "--bind", root.path, "/", "--proc", "/proc", "--dev", "/dev", "--", *PROGRAM]


def _bundle(root: Root) -> str:
    """Write an OCI bundle (config.md of the runtime specification) and return its folder."""
    folder = os.path.join(root.folder, "bundle")
    if os.path.isdir(folder):
        return folder
    os.mkdir(folder)
    if which("runc") is None:
        raise UnavailableError(
            "the program runc is not installed, and the targets refer to it", hint="apt install runc"
        )
    run(["runc", "spec", "--bundle", folder])
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["process"].update(terminal=False, args=PROGRAM)
    config["root"] = {"path": root.path, "readonly": False}
    config["linux"]["namespaces"] = [{"type": name} for name in _NAMESPACES]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return folder


def _compile(folder: str) -> str:
    program = os.path.join(folder, "floor")
    run(["cc", "-O2", "-Wall", "-Werror", "-o", program, _FLOOR_SOURCE])
    return program


def _floor(program: str, root: Root, steps: Sequence[str]) -> float:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(dir=root.folder) as folder:
        options = overlay_options(root.lower, folder)
        target = os.path.join(folder, "rootfs")
        os.mkdir(target)
        lines = "".join(f"{step}\n" for step in steps).encode()
        return int(run([program, target, options, *PROGRAM], stdin=lines)[1]) / 1e9
