"""The disk space of an instance after it has written, changed and deleted files: allocated bytes on the host."""

from __future__ import annotations

import os
from random import Random

from bench.probes import Request, Seen, tool
from bench.probes.driven import START_S, STEP_S, Driven, driven
from bench.questions import Question, value
from vmctl import paths
from vmctl.footprint import footprint
from vmctl.spec.workload import Workload

ROUNDS = 3
MIB = 1024**2
WRITTEN_BYTES = 50 * MIB
LOWER_BYTES = 100 * MIB
DOOMED_BYTES = 10 * MIB
LOWER, DOOMED = "/vmctl-lower", "/vmctl-doomed"

# Mount points of a guest's writable file system: the root of a system on a disk, below the overlay of a system's image,
# and below the overlay in the initramfs (vmm/guest/init). fstrim(8) needs a mount point; overlayfs itself cannot trim.
MOUNTS = ("/", "/run/vmctl/disk", "/proc/1/root/disk")

# line that ends the step, name of the value, sign: 1 for space taken, -1 for space given back
STEPS = (
    ("end write", "written_bytes", 1),
    ("end copy", "copied_bytes", 1),
    ("end remove", "whiteout_bytes", 1),
    ("end delete", "deleted_bytes", -1),
)
TRIM = "end trim"

_FROM = "Change of the allocated bytes (st_blocks * 512) of the instance's folder, after a sync inside and outside:"

QUESTIONS = (
    Question(
        "disk.written_bytes",
        "disk for 50 MiB written",
        "bytes",
        value("written_bytes"),
        meaning=f"{_FROM} 50 MiB were written to a new file.",
    ),
    Question(
        "disk.copied_bytes",
        "disk for 1 byte changed in 100 MiB of the image",
        "bytes",
        value("copied_bytes"),
        meaning=f"{_FROM} overlayfs copies the whole file first, a disk overlay only one cluster.",
    ),
    Question(
        "disk.whiteout_bytes",
        "disk for 10 MiB of the image deleted",
        "bytes",
        value("whiteout_bytes"),
        meaning=f"{_FROM} the shared image does not change, so nothing shrinks.",
    ),
    Question(
        "disk.deleted_bytes",
        "disk given back, 50 MiB deleted",
        "bytes",
        value("deleted_bytes"),
        less_is_better=False,
        meaning=f"{_FROM} the 50 MiB written before were deleted. A guest's disk does not shrink by that.",
    ),
    Question(
        "disk.trimmed_bytes",
        "  and the guest's file system trimmed",
        "bytes",
        value("trimmed_bytes"),
        less_is_better=False,
        meaning="Space given back by the deletion and a following FITRIM (fstrim(8)) in the guest together.",
    ),
)


def prepare(work: Workload) -> Workload:
    """Return a workload that changes its root file system, with the user's image and two more files of random bytes.

    The disk has the default size: the user's disk may be too small.
    """
    files = {tool.PATH: tool.program(), LOWER: random_file(LOWER_BYTES), DOOMED: random_file(DOOMED_BYTES)}
    return tool.bare(work)._replace(
        image=tool.derive(work.image, files),
        command=(tool.PATH, "change", str(WRITTEN_BYTES), LOWER, DOOMED, *MOUNTS),
        resources=work.resources._replace(disk_bytes=None),
    )


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return START_S + (len(STEPS) + 1) * STEP_S + 60.0


def observe(request: Request) -> Seen:
    """Return the allocated bytes after each step. Raises errors of vmctl.errors."""
    texts: dict[str, str] = {}
    with driven(request) as one:
        taken = _allocated(one)
        values: dict[str, float] = {"created_bytes": taken}
        for until, name, sign in STEPS:
            one.step(until)
            before, taken = taken, _allocated(one)
            values[name] = sign * (taken - before)
        if one.backend.features.own_kernel:  # else this would trim a file system of the host
            answer = one.step(TRIM)
            if answer[:1].isdigit():
                values["trimmed_bytes"] = values["deleted_bytes"] + taken - _allocated(one)
            else:
                texts["trim"] = answer
        texts.update(tool.texts(one.inst))
    return Seen({}, values, {}, texts)


def _allocated(one: Driven) -> int:
    """Return the allocated bytes of the instance's own files, after flushing them to the disk.

    The program inside has synced, so only the host's cache is left. st_blocks of data that is not yet on the disk is an
    estimate of the file system and may change when it is written.
    """
    for folder, folders, names in os.walk(one.inst.directory):
        folders[:] = [name for name in folders if not os.path.ismount(os.path.join(folder, name))]
        for name in names:
            _flush(os.path.join(folder, name))
    return footprint(one.inst).disk_bytes


def _flush(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # a socket, a link, a file that has gone
        return
    try:
        if os.path.isfile(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def random_file(size: int) -> str:
    """Return the path of a file with `size` random bytes, always the same ones; it is made once."""
    folder = os.path.join(paths.cache_root(), "bench")
    path = os.path.join(folder, f"random-{size}")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        random, temporary = Random(size), f"{path}.{os.getpid()}.new"
        with open(temporary, "wb") as file:
            for _ in range(size // MIB):
                file.write(random.randbytes(MIB))
        os.replace(temporary, path)
    return path
