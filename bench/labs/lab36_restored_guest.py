"""Lab 36: whether a restored guest is slower at first."""

from __future__ import annotations

from statistics import median

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, UNDECIDABLE, Evidence, Lab, Place, Samples, Verdict, missing, samples
from vmctl.spec.workload import VmOptions

_COUNT, _AGAIN, _MORE = 3, 3, 1.2
_MIB = 32
_DATA = f"dd if=/dev/urandom of=/dev/shm/data bs=1M count={_MIB} 2>/dev/null; echo up; exec sleep 100000"
_USE = (
    "for program in awk sed sort grep md5sum gzip tar bc vi find; do $program --help; done >/dev/null 2>&1; "
    "ls -lR /etc /bin | sort | md5sum; dd if=/dev/shm/data of=/dev/null bs=64k"
)
_RESIDENT, _FIRST, _LATER = "resident guest: a use", "restored guests: first use", "restored guests: later uses"


def _gather(place: Place) -> Evidence:
    origin = place.start("vm", _DATA, network="none", vm=VmOptions(warm="on"))
    resident = _uses(place, origin)[1:]
    restored = [_uses(place, name) for name in place.clones(origin, _COUNT)]
    return {
        _RESIDENT: Samples("s", tuple(resident)),
        _FIRST: Samples("s", tuple(uses[0] for uses in restored)),
        _LATER: Samples("s", tuple(value for uses in restored for value in uses[1:])),
    }


def _uses(place: Place, name: str) -> list[float]:
    """Return the processor time of each use of a guest, in seconds."""
    before, found = place.spent_s(name), []
    for _ in range(_AGAIN + 1):
        place.exec(name, _USE)
        now = place.spent_s(name)
        found.append(now - before)
        before = now
    return found


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, _RESIDENT, _FIRST):
        return unknown
    resident, first = median(samples(seen, _RESIDENT)), samples(seen, _FIRST)
    slower = [one >= _MORE * resident for one in first]
    reason = f"the first use takes {quantity(median(first), 's')} of processor time, in a resident guest "
    reason += f"{quantity(resident, 's')}: {median(first) / max(resident, 1e-9) - 1:+.0%}"
    if later := samples(seen, _LATER):
        reason += f"; later ones {quantity(median(later), 's')}"
    if len(set(slower)) > 1:
        return Verdict(UNDECIDABLE, f"{reason}; slower in {sum(slower)} of {len(slower)} guests")
    return Verdict(HOLDS if slower[0] else REFUTED, reason)


LAB = Lab(
    number=36,
    name="restored-guest",
    claim="A guest that was restored from a snapshot is slower at first.",
    why="`Starts in 10 ms` is true of a snapshot, but its memory comes page by page when the guest uses it.",
    steps=(
        f"start a guest with {_MIB} MiB of data in its memory; use it: ten programs, a listing, all of the data",
        f"make a snapshot of it, start {_COUNT} clones, and use each of them {_AGAIN + 1} times in the same way",
        "compare the processor time of the first use with that of the guest that has all in its memory",
    ),
    rule=f"holds if the first use took at least {_MORE:g} times that of the resident guest in each clone, refuted if "
    "it did in none; else undecidable",
    modes=("vm",),
    gather=_gather,
    decide=_decide,
    next=(
        "the page faults of its QEMU, in /proc/PID/stat: how many has the first use, how many the second?",
        "vmctl bench clones: what the first page costs over HTTP",
        "the snapshot is in the page cache here: drop it (drop_caches), and measure time instead of processor time",
    ),
    published="REAP (ASPLOS 2021): functions restored from a snapshot run 95 % slower than resident ones; prefetch of "
    "their pages makes them 3.7 times faster",
)
