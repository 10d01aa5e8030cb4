"""What a step has changed for the process that took it, read from its folder in /proc: proc(5).

Only files are read that any user may read: the process of a container belongs to another user, or to none of the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

_STATUS = ("NSpid", "Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
_SHOWN = 4  # changes of one kind

Seen = Mapping[str, tuple[str, ...]]


def seen(pid: int) -> Seen:
    """Return what can be seen of a process: mounts, network links, control groups, and lines of its status.

    What cannot be read, of a process that has ended for instance, is empty.
    """
    status = dict(line.partition(":")[::2] for line in _lines(pid, "status"))
    found = {
        "mount": tuple(map(_mount, _lines(pid, "mountinfo"))),
        "link": tuple(line.partition(":")[0].strip() for line in _lines(pid, "net/dev")[2:]),
        "control group": tuple(line.partition(":")[2] for line in _lines(pid, "cgroup")),
    }
    return {**found, **{name: tuple(filter(None, [status.get(name, "").strip()])) for name in _STATUS}}


def between(before: Seen, after: Seen) -> list[str]:
    """Return a line for each kind of thing that is not as before."""
    found = []
    for kind, now in after.items():
        old = before.get(kind, ())
        more, less = [one for one in now if one not in old], [one for one in old if one not in now]
        if kind in _STATUS and (more or less):
            found.append(f"{kind}: {_words(old)} -> {_words(now)}")
        else:
            found += [f"{sign} {kind}: {_list(some)}" for sign, some in (("+", more), ("-", less)) if some]
    return found


def _words(values: tuple[str, ...]) -> str:
    return " ".join(" ".join(values).split()) or "(none)"


def _list(some: list[str]) -> str:
    more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
    return ", ".join(some[:_SHOWN]) + more


def _mount(line: str) -> str:
    """Return mount point and type of a line of mountinfo; optional fields are between them."""
    here, _, there = line.partition(" - ")
    words = here.split(" ")
    options = " read-only" if len(words) > 5 and words[5].split(",")[0] == "ro" else ""
    return f"{words[4] if len(words) > 4 else '?'} ({there.partition(' ')[0]}{options})"


def _lines(pid: int, name: str) -> list[str]:
    with suppress(OSError), open(f"/proc/{pid}/{name}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()
    return []
