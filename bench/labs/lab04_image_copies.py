"""Lab 4: whether each guest has a copy of its image."""

from __future__ import annotations

import os
from statistics import median

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Samples, Value, Verdict, missing, samples
from vmctl.footprint import footprint
from vmctl.instances import instance

_MODES = ("container", "vm")
_COUNT, _MIB = 2, (32, 24, 28, 36, 40, 44, 48)


def _gather(place: Place) -> Evidence:
    size = place.parameter("image_mib") << 20
    image = place.image("FROM tiny", "COPY ballast /ballast", files={"ballast": os.urandom(size)})
    seen: dict[str, Value] = {"image": Samples("bytes", (float(size),))}
    for mode in _MODES:
        names = [place.start(mode, image=image) for _ in range(_COUNT)]
        os.sync()
        found = [footprint(instance.load(name)) for name in names]
        shared = {os.stat(path).st_ino: os.stat(path).st_blocks * 512 for one in found for path in one.shared_files}
        seen[f"{mode}: disk of each instance"] = Samples("bytes", tuple(float(one.disk_bytes) for one in found))
        seen[f"{mode}: disk that all share"] = Samples("bytes", (float(sum(shared.values())),))
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "image", *(f"{mode}: disk of each instance" for mode in _MODES)):
        return unknown
    image = samples(seen, "image")[0]
    container, guest = (median(samples(seen, f"{mode}: disk of each instance")) for mode in _MODES)
    word = HOLDS if guest >= image > container * 10 else REFUTED
    sizes = (quantity(size, "bytes") for size in (image, container, guest))
    return Verdict(word, "of an image with {}, a container has {} for itself, a guest {}".format(*sizes))


LAB = Lab(
    number=4,
    name="image-copies",
    claim="A virtual machine needs a copy of its image each, containers share the layers.",
    why="A hundred instances of an image with 1 GB take 1 GB or 100 GB, and as long to copy.",
    steps=(
        f"build an image with a file of {_MIB[0]} MiB, or what the seed draws, that cannot be compressed",
        f"start {_COUNT} instances of it in each mode",
        "add up the allocated bytes of the files of each instance, and of the files that all of them use",
    ),
    rule="holds if a guest has at least the bytes of the image for itself, and a container less than a tenth of them",
    modes=_MODES,
    parameters={"image_mib": _MIB},
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl df -v: what is shared, and with whom?",
        "cp --sparse=never of a disk image, ten times: how long, how many bytes?",
        "qemu-img create -b: another way in which guests share what they do not change",
    ),
)
