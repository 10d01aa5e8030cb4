"""Fifteen published claims about containers and guests, with their sources: facts and figures only, in our words.

Some fit their figures, and some do not: `vmctl lab claim --published --predict` asks which.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A claim in the words that are checked, what it is about, and its source."""

    claim: str
    about: str
    source: str


_KATA = "Kata Containers, docs/how-to/how-to-use-template-in-runtime-rs.md"
_CRUN = "crun, README.md"
_SIEGE = "agrrh.com, RunC vs Kata containers performance (2018)"
_ZEROBOOT = "zeroboot, README.md"
_YOUKI = "youki, README.md (0.3.3)"
CLAIMS = (
    Published("0.82 -> 0.6 s is a reduction of 73.2 %", "start of a guest, from a template", _KATA),
    Published("3.34 -> 1.69 s is 49.4 % less", "100 containers, by runc and by crun", _CRUN),
    Published("43274 / 60 = 724.37", "requests in 60 s, and the rate per second", _SIEGE),
    Published("0.79 ms is under 1 ms", "median of a fork of a guest, called sub-millisecond", _ZEROBOOT),
    Published("223.2 -> 178.2 MiB is a reduction of 79.8 %", "memory of a guest from a template", _KATA),
    Published("5 x 36 = 180", "guests per core and second, cores, guests per second", "Firecracker, docs/design.md"),
    Published("224.6 ms of 111.5 ms is 200 %", "a container by runc, compared with youki", _YOUKI),
    Published("10.95 -> 5.70 s is 47.9 % less", "the same, without a network namespace", f"{_CRUN} (2020)"),
    Published("1.74 ms is under 1 ms", "99th percentile of the same fork, called sub-millisecond", _ZEROBOOT),
    Published("47.3 ms of 111.5 ms is 42 %", "a container by crun, compared with youki", _YOUKI),
    Published(
        "500 is 10 times 60",
        "most containers and fewest guests of a server, `up to 10 times`",
        "hokstadconsulting.com, Benchmarking Containers and VMs for Applications",
    ),
    Published("269 -> 298 ns is 11 % more", "getpid in a container", "opscart/container-isolation-benchmarks"),
    Published(
        "9 of 12.8 GB is 72 %",
        "memory that templates save for 100 guests of 128 MB",
        "Kata Containers, docs/how-to/what-is-vm-templating-and-how-do-I-use-it.md",
    ),
    Published("11.17 -> 6.16 s is 44.8 % less", "the same, with a new network namespace", f"{_CRUN} (2020)"),
    Published("293.05 x 1.17 = 342.96", "requests per second, seconds per request, requests at a time", _SIEGE),
)
