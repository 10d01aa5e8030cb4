"""Lab 26: how large images are."""

from __future__ import annotations

import json
import os
import shutil
from tempfile import TemporaryDirectory

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Samples, Value, Verdict, missing, samples
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.instances import instance
from vmctl.programs import run

_MODES = ("container", "vm")
_LAYERS, _SHARED, _DISK = "layers", "layers, kernel and initrd", "disk with the same files"
_CHANGED = "moved for a small change"
_FOLDERS = ("/bin", "/etc", "/sbin", "/usr")
_LARGE = 2.0


def _gather(place: Place) -> Evidence:
    container, guest = (place.start(mode) for mode in _MODES)
    layers, needed = (set(footprint(instance.load(name)).shared_files) for name in (container, guest))
    changed = place.image("FROM tiny", "RUN echo changed >/srv/small")
    found: dict[str, float] = {_LAYERS: _allocated(layers), _SHARED: _allocated(needed)}
    found[f"{_LAYERS}: {_CHANGED}"] = _last_layer_bytes(place.vmctl("image", "inspect", changed))
    with TemporaryDirectory(prefix="vmctl-lab-") as folder:
        root = os.path.join(folder, "root")
        os.makedirs(os.path.join(root, "boot"))
        for path in _FOLDERS:
            place.vmctl("cp", f"{container}:{path}", root)
        for path in needed - layers:
            shutil.copy(path, os.path.join(root, "boot"))
        found[_DISK] = found[f"{_DISK}: {_CHANGED}"] = _disk_bytes(root, os.path.join(folder, "disk"))
    seen: dict[str, Value] = {name: Samples("bytes", (size,)) for name, size in found.items()}
    return seen


def _allocated(files: set[str]) -> float:
    return float(sum(os.stat(path).st_blocks * 512 for path in files))


def _last_layer_bytes(answer: str) -> float:
    text, _, code = answer.rpartition("\nexit ")
    if code != "0":
        raise VmctlError(f"the image could not be inspected: {text}")
    return float(json.loads(text)[0]["layers"][-1]["allocated_bytes"])


def _disk_bytes(root: str, path: str) -> float:
    """Return the allocated bytes of an ext4 file system with the files of a folder: the whole file has to be moved."""
    run(["mke2fs", "-q", "-t", "ext4", "-d", root, path, "1G"])
    os.sync()
    return float(os.stat(path).st_blocks * 512)


def _decide(seen: Evidence) -> Verdict:
    names = (_LAYERS, _SHARED, _DISK, f"{_LAYERS}: {_CHANGED}", f"{_DISK}: {_CHANGED}")
    if unknown := missing(seen, *names):
        return unknown
    layers, shared, disk, small, whole = (samples(seen, name)[0] for name in names)
    sizes = (quantity(size, "bytes") for size in (layers, shared, disk, small, whole))
    reason = "layers {}, with kernel and initrd {}, as a disk {}; a small change moves {} or {}".format(*sizes)
    return Verdict(HOLDS if disk >= _LARGE * layers else REFUTED, reason)


LAB = Lab(
    number=26,
    name="image-size",
    claim="Images of containers are small, those of virtual machines large.",
    why="The mode is not the reason. It is what is inside: a kernel, drivers, an init, and no layers.",
    steps=(
        "start the same image as a container and as a guest, and add up the files that such a start needs",
        "write the same files, kernel and initrd to a disk with ext4",
        "change one small file: what has to be moved to a machine that has the old image?",
    ),
    rule=f"holds if the disk takes at least {_LARGE:g} times as many bytes as the layers; else refuted",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl image build configs/images/debian.yaml: the sizes of a whole distribution",
        "qemu-img create -b: how many bytes does the same change take above a disk?",
        "a distribution's cloud image: how much of it is kernel, firmware and modules?",
    ),
)
