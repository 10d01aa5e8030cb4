"""Lab 6: what it costs to change one byte of a large file."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Samples, Value, Verdict, missing, samples
from bench.labs.measuring import values
from bench.probes.writes import LOWER_BYTES
from vmctl.programs import run

_MODES = ("container", "vm")
_WAYS = ("container: overlayfs", "vm: overlayfs", "block overlay (qcow2)")
_SMALL = 16  # it costs what is changed if it costs less than this part of the file


def _gather(place: Place) -> Evidence:
    found = place.samples("writes", _MODES)
    seen: dict[str, Value] = {"file": Samples("bytes", (float(LOWER_BYTES),))}
    for mode in _MODES:
        seen[f"{mode}: overlayfs"] = values(found[mode], "copied_bytes", "bytes")
    return {**seen, _WAYS[2]: Samples("bytes", (_block_overlay_bytes(),))}


def _block_overlay_bytes() -> float:
    """Return the bytes that one changed byte allocates in a qcow2 file above another one."""
    with TemporaryDirectory(prefix="vmctl-lab-") as folder:
        below, above = (os.path.join(folder, name) for name in ("below", "above"))
        with open(below, "wb") as file:
            file.truncate(LOWER_BYTES)
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", above])
        before = os.stat(above).st_blocks
        run(["qemu-io", "-f", "qcow2", "-c", f"write -P 1 {LOWER_BYTES // 2} 1", above])
        os.sync()
        return float((os.stat(above).st_blocks - before) * 512)


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "file", *_WAYS):
        return unknown
    costs = {way: samples(seen, way)[-1] for way in _WAYS}
    dear = [way for way, cost in costs.items() if cost >= samples(seen, "file")[0] / _SMALL]
    reason = "one byte costs " + ", ".join(f"{quantity(cost, 'bytes')} ({way})" for way, cost in costs.items())
    return Verdict(REFUTED if dear else HOLDS, reason)


LAB = Lab(
    number=6,
    name="copy-on-write",
    claim="Copy on write costs what you change.",
    why="A database whose files are in an image is copied whole at its first transaction.",
    steps=(
        f"change one byte of a file of {LOWER_BYTES >> 20} MiB of the image, in a container and in a guest",
        "change one byte of a disk of the same size below a qcow2 file",
        "compare the allocated bytes before and after",
    ),
    rule=f"holds if one byte costs less than 1/{_SMALL} of the file in all three; else refuted",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "the same with chmod instead of a byte: what is copied now?",
        "a file in a volume: nothing is copied, and why?",
        "a second byte of the same file, far away: what does it cost?",
    ),
    published="kernel documentation of overlayfs: the file is copied up when it is opened for writing",
)
