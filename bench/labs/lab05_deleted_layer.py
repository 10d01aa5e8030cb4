"""Lab 5: a file that a later layer deletes."""

from __future__ import annotations

import json
import os

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Samples, Value, Verdict, missing, samples
from vmctl.errors import VmctlError

_MIB = (16, 12, 14, 18, 20, 22, 24)
_NAMES = ("with the file", "deleted in the next layer", "deleted in the same layer")


def _gather(place: Place) -> Evidence:
    add, delete = "COPY ballast /ballast", "RUN rm /ballast"
    size = place.parameter("file_mib") << 20
    files = {"ballast": os.urandom(size)}
    both = f"RUN head -c {size} /dev/urandom >/ballast && rm /ballast"
    seen: dict[str, Value] = {"file": Samples("bytes", (float(size),))}
    for name, lines in zip(_NAMES, ([add], [add, delete], [both]), strict=True):
        image = place.image("FROM tiny", *lines, files=files)
        sizes = _layer_bytes(place.vmctl("image", "inspect", image))
        seen[f"{name}: all layers"] = Samples("bytes", (sum(sizes),))
        (answer,) = place.ask("container", "test -e /ballast && echo there || echo gone", image=image)
        seen[f"{name}: file"] = answer.split()[0]
    return seen


def _layer_bytes(answer: str) -> list[float]:
    text, _, code = answer.rpartition("\nexit ")
    if code != "0":
        raise VmctlError(f"the image could not be inspected: {text}")
    return [float(layer["allocated_bytes"]) for layer in json.loads(text)[0]["layers"]]


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "file", *(f"{name}: all layers" for name in _NAMES), f"{_NAMES[1]}: file"):
        return unknown
    size = samples(seen, "file")[0]
    before, after, never = (samples(seen, f"{name}: all layers")[0] for name in _NAMES)
    sizes = (quantity(one, "bytes") for one in (before, after, never))
    reason = "{} with the file, {} with a layer that deletes it, {} if no layer has it".format(*sizes)
    right = after >= before > never + size / 2 and seen[f"{_NAMES[1]}: file"] == "gone"
    return Verdict(HOLDS if right else REFUTED, reason)


LAB = Lab(
    number=5,
    name="deleted-layer",
    claim="A layer is a difference: to delete a file in a later layer does not make the image smaller.",
    why="Passwords and caches that `RUN rm` has deleted are still in the image, for everybody who has it.",
    steps=(
        f"build an image with a random file of {_MIB[0]} MiB, or of what the seed draws",
        "build it with one more layer that deletes the file, and once with both in one step",
        "add up the allocated bytes of the layers, and look for the file in a container",
    ),
    rule="holds if the image with the deletion is not smaller, although the file is gone in the container",
    modes=("container",),
    parameters={"file_mib": _MIB},
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl image history: which step has how many bytes?",
        "mount the lower layer: mount -t erofs -o ro FILE DIR, and read the deleted file",
        "the whiteout: a character device 0/0 in the layer above",
    ),
)
