"""The probe program: one static file, compiled on this host and added to the workload's image as a layer.

The resulting image is called `bench/probe:` and 12 hexadecimal digits of its content. `vmctl image ls` shows it like
any other; it takes only the space of the program. `vmctl image prune -a` removes it, and the next measurement makes it
again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from bench.probes import Request, Seen
from bench.probes.lines import Span, follow, spans
from vmctl import compiled, engine
from vmctl.backend import HasReceipt, Start
from vmctl.ends import backend_of
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmctl.programs import module, run
from vmctl.spec.workload import Restart, Workload

PATH = "/vmctl-probe"  # in the instance
IMAGE = "bench/probe"
RAN = "ran"  # key of the texts of a sample: its receipt of isolation
_SOURCES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "tool")
_BUILD_S = 900.0
WORK_S = 120.0  # for work that takes a second without emulation
LIMIT_S = 300.0  # for a whole sample: an emulated guest may boot a whole system first


def program() -> str:
    """Return the path of the static program compiled from bench/tool; it is kept until one of its sources changes.

    Raises UnavailableError if no C compiler or no static C library is installed.
    """
    return compiled.program("bench-probe", _SOURCES, "the probe program")


def derive(image: str, files: Mapping[str, str]) -> str:
    """Return the name of an image with the files (path inside -> path on the host) added to another image.

    `vmctl image build` makes it; its cache makes a second call cheap. Raises VmctlError with the reason of the build.
    """
    from tempfile import TemporaryDirectory

    name = f"{IMAGE}:{_digest(image.encode(), *(part for pair in sorted(files.items()) for part in _parts(*pair)))}"
    with TemporaryDirectory(prefix="vmctl-bench-") as folder:
        lines = [f"FROM {image}"]
        for number, (inside, path) in enumerate(sorted(files.items())):
            shutil.copy(path, os.path.join(folder, str(number)))
            lines.append(f'COPY ["{number}", "{inside}"]')
        with open(os.path.join(folder, "Dockerfile"), "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
        build(folder, name, f"the probe program cannot be added to the image {image}")
    return name


def build(what: str, name: str, failure: str) -> None:
    """Make an image of a folder or recipe by `vmctl image build`. Raises VmctlError: `failure` and the reason."""
    argv = module("vmctl", "image", "build", "--quiet", "--tag", name, what)
    code, _, errors = run(argv, check=False, timeout_s=_BUILD_S)
    if code != 0:
        reasons = [line.removeprefix("vmctl: ") for line in errors.splitlines() if line.startswith("vmctl: ")]
        hints = [line.removeprefix("hint: ") for line in errors.splitlines() if line.startswith("hint: ")]
        raise VmctlError(": ".join([failure, *reasons[:1]]), hint="".join(hints[:1]), detail="" if reasons else errors)


def with_program(work: Workload) -> Workload:
    """Return the workload with the probe program at PATH and without what only its own command needs; see `bare`.

    Raises VmctlError if the image cannot be made.
    """
    return bare(work)._replace(image=derive(work.image, {PATH: program()}))


def bare(work: Workload) -> Workload:
    """Return the workload as root in /, without what only its own command needs: ports, probe, files, restarts."""
    return work._replace(ports=(), ready=None, files=(), user="0", workdir="/", restart=Restart())


@contextmanager
def running(request: Request) -> Iterator[Start]:
    """Lend the start of an instance, which is ready if the workload has a probe. The instance is removed at the end."""
    with engine.running(request.work._replace(name=request.name), request.backend()) as start:
        yield start
        start.inst.timeline.mark("T7")


def texts(inst: Instance) -> dict[str, str]:
    """Return the texts that belong to an instance's figures: accelerator, digest of its image, and where it ran.

    Raises VmctlError if it did not run where its mode runs it.
    """
    found = {
        "accelerator": inst.state.accelerator,
        "warm": inst.state.warm or None,
        "image_digest": inst.state.image_digest,
        RAN: ran(inst),
    }
    return {key: text for key, text in found.items() if text is not None}


def ran(inst: Instance) -> str | None:
    """Return the receipt of isolation of an instance as JSON; None if its mode has none.

    Raises VmctlError if the instance has not reported it, or if its kernel is not of the kind that the mode has.
    """
    backend = backend_of(inst)
    if not isinstance(backend, HasReceipt):
        return None
    found = backend.receipt(inst)
    if not found:
        raise VmctlError(f"{inst.name} has not reported where it runs")
    if backend.features.own_kernel == (found["boot_id"] == processes.boot_id()):
        raise VmctlError(f"{inst.name} ran elsewhere than mode {inst.state.mode} promises: {json.dumps(found)}")
    return json.dumps(found, sort_keys=True)


def ran_all(names: Sequence[str]) -> dict[str, str]:
    """Return the receipts of several running instances, as one text: a JSON array in the order of `names`.

    Raises VmctlError if one of them has not run where its mode runs it.
    """
    found = [ran(instance.load(name)) for name in names]
    return {RAN: f"[{', '.join(filter(None, found))}]"} if any(found) else {}


def working(work: Workload, counts: Mapping[str, int]) -> Workload:
    """Return a workload that does each work of bench/tool/work.c so many times (name -> count). Raises VmctlError."""
    command = (PATH, "work", *(f"{name}:{count}" for name, count in counts.items()))
    return with_program(work)._replace(command=command)


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return LIMIT_S


def worked(request: Request) -> tuple[dict[str, Span], Seen]:
    """Return the time of each work of `working`, and the sample without values. Raises errors of vmctl.errors."""
    with running(request) as start:
        inst = start.inst
        lines = follow(start.watch, "done", WORK_S)
        found = texts(inst)
    if lines[0][1].startswith("pinned "):
        found["processor"] = lines[0][1].partition(" ")[2]
    return spans(lines), Seen(dict(inst.timeline.marks_ns), {}, {}, found)


def _parts(inside: str, path: str) -> tuple[bytes, bytes]:
    return inside.encode(), _content(path)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _digest(*parts: bytes) -> str:
    """Return 12 hexadecimal digits that depend on the parts and on their lengths."""
    from hashlib import sha256

    found = sha256()
    for part in parts:
        found.update(b"%d:" % len(part) + part)
    return found.hexdigest()[:12]
