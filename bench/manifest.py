"""The facts about a host that are needed to interpret its numbers."""

from __future__ import annotations

import os
import platform
from hashlib import sha256
from typing import Any

from vmctl import __version__, doctor
from vmctl.linux.cgroups import hierarchy
from vmctl.programs import run, which

_CPU = "/sys/devices/system/cpu"
_MM = "/sys/kernel/mm"


def facts() -> dict[str, Any]:
    """Return the facts about this host; None for an unknown one."""
    uname = os.uname()
    return {
        "id": _identity(),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "under_a_hypervisor": "hypervisor" in (_field("/proc/cpuinfo", "flags") or "").split(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{uname.release} {uname.version}",
        "kernel_command_line": kernel_parameters(_text("/proc/cmdline") or ""),
        "mitigations": _mitigations(),
        "governor": _text(f"{_CPU}/cpu0/cpufreq/scaling_governor"),
        "transparent_hugepages": _text(f"{_MM}/transparent_hugepage/enabled"),
        "ksm": _text(f"{_MM}/ksm/run"),
        "cgroup_version": hierarchy().version,
        "load_average": list(os.getloadavg()),
        "vmctl": __version__,
        "python": platform.python_version(),
        "qemu": _version(f"qemu-system-{uname.machine}"),
        "libvirt": _version("libvirtd"),
        "checks": _checks(),
    }


def kernel_parameters(line: str) -> str:
    """Return the part of a kernel command line that is for the kernel, without init's name and arguments.

    Arguments after `--` go to init (bootparam(7)). They may be private, and do not affect a measurement.
    """
    words = line.partition(" -- ")[0].split()
    return " ".join(word for word in words if not word.startswith(("init=", "rdinit=")))


def _checks() -> dict[str, str]:
    """Return what doctor finds, including how KVM was tried, without the paths of programs."""
    return {check.name: check.found for check in doctor.checks() if not check.found.startswith("/")}


def _identity() -> str:
    """Return an id that distinguishes this host from others without naming it.

    A virtual machine that moves to another processor becomes another host.
    """
    known = (
        _text("/etc/machine-id") or os.uname().nodename,
        _field("/proc/cpuinfo", "model name"),
        os.cpu_count(),
        os.sysconf("SC_PHYS_PAGES"),
    )
    return sha256(repr(known).encode()).hexdigest()[:16]


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def _field(path: str, name: str) -> str | None:
    lines = (_text(path) or "").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _mitigations() -> dict[str, str | None]:
    folder = f"{_CPU}/vulnerabilities"
    return {name: _text(f"{folder}/{name}") for name in sorted(os.listdir(folder))} if os.path.isdir(folder) else {}


def _version(program: str) -> str | None:
    """Return the first line of `PROGRAM --version`."""
    if which(program) is None:
        return None
    return (run([program, "--version"], check=False)[1].splitlines() or [""])[0] or None
