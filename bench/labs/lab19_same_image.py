"""Lab 19: the same image everywhere."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Verdict, chosen, missing

_MODES = ("host", "container", "vm")


def _gather(place: Place) -> Evidence:
    return chosen(place.facts(_MODES), "image tree distribution root boot_id", _MODES)


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{mode}: {name}" for mode in _MODES for name in ("image", "tree", "boot_id"))):
        return unknown
    images, trees, boots = ({seen[f"{mode}: {name}"] for mode in _MODES} for name in ("image", "tree", "boot_id"))
    if len(images) == len(trees) == 1 and len(boots) == 2:
        return Verdict(HOLDS, "one digest of the image and of its files in all modes, and two kernels")
    return Verdict(REFUTED, f"{len(images)} images, {len(trees)} digests of the files, {len(boots)} kernels")


LAB = Lab(
    number=19,
    name="same-image",
    claim="The same image runs the same everywhere: it carries its libraries, and not its kernel.",
    why="It is the promise of images, and the kernel is the part that the promise leaves out.",
    steps=(
        "start the same image as a process, as a container and as a guest",
        "compute a digest of path, mode, owner, kind and size of all files of the root, inside of each",
        "compare the boot ids",
    ),
    rule="holds if the digests are equal in all modes and there are two kernels: this machine's and the guest's",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl compare tiny: what else is the same?",
        "touch a file in an instance, and vmctl diff it in each mode",
        "vmctl image export tiny: the same layers, for docker",
    ),
)
