"""What an import costs, compared with the same by hand: `tar` unpacks the layer, `mkfs.erofs` makes the file system.

The image consists of files of this host and is made by other people's tools, as an OCI archive with a gzipped layer.
Both take turns and always begin with an empty store. Measured are also a second import of the same image, and the most
memory that an import has resident.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, NamedTuple

from bench import folder as folders
from bench import manifest
from bench.export import markdown_table
from vmctl.errors import UnavailableError
from vmctl.linux import filetree
from vmctl.programs import module, run
from vmctl.spec.units import format_seconds, format_size

FORMAT = "vmctl images 1"
IMAGE_BYTES = 450 * 10**6
AT_MOST = 2.5  # times as long as by hand
MEMORY_AT_MOST_BYTES = 150 * 10**6
_HOUR_S = 3600.0
_SOURCE = "/usr"
COLUMNS = ("what", "median", "least", "most", "memory")

Progress = Callable[[str], None]


class Sample(NamedTuple):
    """One import by vmctl, or one by hand."""

    kind: str
    seconds: float
    memory_bytes: int = 0  # the most resident; 0: not measured


class Result(NamedTuple):
    """All samples, and what the image consists of."""

    samples: tuple[Sample, ...]
    files: int
    unpacked_bytes: int
    packed_bytes: int
    runs: int
    seed: int
    host: dict[str, Any]

    def of(self, kind: str) -> list[Sample]:
        """Return the samples of one kind."""
        return [sample for sample in self.samples if sample.kind == kind]

    def ratio(self) -> float:
        """Return how many times as long as by hand an import takes: the ratio of the medians."""
        return _median(self.of("import")) / _median(self.of("by hand"))


def measure(runs: int, seed: int, progress: Progress, image_bytes: int = IMAGE_BYTES) -> Result:
    """Return the samples of `runs` rounds, each in random order. Raises UnavailableError if a tool is missing."""
    chance, samples = random.Random(seed), []
    with TemporaryDirectory(prefix="vmctl-bench-") as folder:
        progress("making an image of this host's files")
        files, unpacked_bytes = _make(folder, image_bytes)
        kinds: list[tuple[str, Callable[[str], Iterator[Sample]]]] = [("by hand", _by_hand), ("import", _import)]
        for number in range(runs + 1):  # the first round fills the host's caches and is discarded
            chance.shuffle(kinds)
            for kind, once in kinds:
                progress(f"round {number} of {runs}: {kind}")
                found = list(once(folder))
                samples += found if number else []
        packed_bytes = os.path.getsize(os.path.join(folder, "layer.tar.gz"))
    return Result(tuple(samples), files, unpacked_bytes, packed_bytes, runs, seed, manifest.facts())


def document(result: Result) -> dict[str, Any]:
    """Return the content of `images.json`: the result with every raw sample."""
    return {
        "format": FORMAT,
        "runs": result.runs,
        "seed": result.seed,
        "host": result.host,
        "files": result.files,
        "unpacked_bytes": result.unpacked_bytes,
        "packed_bytes": result.packed_bytes,
        "ratio": result.ratio(),
        "samples": [sample._asdict() for sample in result.samples],
    }


def rows(result: Result) -> list[tuple[str, ...]]:
    """Return the rows of the table; see COLUMNS."""
    found = []
    for kind in ("by hand", "import", "import again"):
        samples = result.of(kind)
        times = [sample.seconds for sample in samples]
        memory = max(sample.memory_bytes for sample in samples)
        numbers = (format_seconds(value) for value in (_median(samples), min(times), max(times)))
        found.append((kind, *numbers, format_size(memory) if memory else "-"))
    return found


def notes(result: Result) -> list[str]:
    """Return the notes on the numbers, and their targets."""
    memory = max(sample.memory_bytes for sample in result.of("import"))
    return [
        f"an image of {result.files} files, {format_size(result.unpacked_bytes)} unpacked, "
        f"{format_size(result.packed_bytes)} as a gzipped layer",
        f"an import takes {result.ratio():.2f} times as long as tar and mkfs.erofs (at most {AT_MOST:g})",
        f"memory {format_size(memory)} (at most {format_size(MEMORY_AT_MOST_BYTES)})",
        f"rounds: {result.runs} after one discarded, in random order, seed {result.seed}; {result.host['cpu']}, "
        f"{result.host['cpus']} CPUs, Linux {result.host['kernel']}",
    ]


def write(result: Result, folder: str) -> None:
    """Write `images.json` and `images.md` into a folder."""
    lines = ["# An import compared with the same by hand", "", *markdown_table(COLUMNS, rows(result)), ""]
    folders.write(folder, "images", document(result), [*lines, *(f"- {note}" for note in notes(result))])


def _median(samples: list[Sample]) -> float:
    return median(sample.seconds for sample in samples)


def _make(folder: str, image_bytes: int) -> tuple[int, int]:
    """Make layer.tar.gz and image.tar, an OCI archive with that layer; return how many files and bytes it contains."""
    names, total = [], 0
    for name, size_bytes in _files(_SOURCE):
        if total >= image_bytes:
            break
        names.append(name)
        total += size_bytes
    listing, layer = os.path.join(folder, "names"), os.path.join(folder, "layer.tar")
    with open(listing, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\0".join(names))
    run(["tar", "-c", "-f", layer, "-C", "/", "--no-recursion", "--null", "-T", listing], timeout_s=_HOUR_S)
    run(["skopeo", "copy", "--quiet", f"tarball:{layer}", f"oci:{folder}/layout:latest"], timeout_s=_HOUR_S)
    blobs = os.path.join(folder, "layout/blobs/sha256")
    largest = max(os.listdir(blobs), key=lambda name: os.path.getsize(os.path.join(blobs, name)))
    os.link(os.path.join(blobs, largest), os.path.join(folder, "layer.tar.gz"))
    run(["tar", "-c", "-f", os.path.join(folder, "image.tar"), "-C", f"{folder}/layout", "."], timeout_s=_HOUR_S)
    os.unlink(layer)
    if len(names) < 100:
        raise UnavailableError(f"{_SOURCE} has too few files to make an image: {len(names)}, at least 100 are needed")
    return len(names), total


def _files(root: str) -> Iterator[tuple[str, int]]:
    """Yield folders, files and links below `root` with their sizes; folders in an order that is random but fixed.

    Names are relative to /.
    """
    folders = [folder for folder, _, _ in os.walk(root)]
    random.Random(0).shuffle(folders)
    for folder in folders:
        yield folder.lstrip("/"), 0
        for entry in os.scandir(folder):
            with suppress(OSError):
                if entry.is_symlink() or entry.is_file():
                    yield entry.path.lstrip("/"), entry.stat(follow_symlinks=False).st_size


def _by_hand(folder: str) -> Iterator[Sample]:
    tree, made = os.path.join(folder, "tree"), os.path.join(folder, "made.erofs")
    os.mkdir(tree)
    start = monotonic()
    run(["tar", "-x", "-z", "-f", os.path.join(folder, "layer.tar.gz"), "-C", tree], timeout_s=_HOUR_S)
    run(["mkfs.erofs", "--quiet", made, tree], timeout_s=_HOUR_S)
    yield Sample("by hand", monotonic() - start)
    filetree.remove_tree(tree)
    os.unlink(made)


def _import(folder: str) -> Iterator[Sample]:
    root = os.path.join(folder, "root")
    for kind in ("import", "import again"):
        most = 0

        def watch(pid: int) -> None:
            nonlocal most
            most = max(most, _resident_bytes(pid))

        start = monotonic()
        words = module("vmctl", "image", "import", os.path.join(folder, "image.tar"), "--name", "bench")
        run(words, env={**os.environ, "VMCTL_ROOT": root}, timeout_s=_HOUR_S, tick=watch)
        yield Sample(kind, monotonic() - start, most)
    filetree.remove_tree(root)


def _resident_bytes(pid: int) -> int:
    """Return the most memory that a process has had resident so far, in bytes: proc_pid_status(5), VmHWM."""
    with suppress(OSError, IndexError), open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    return 0
