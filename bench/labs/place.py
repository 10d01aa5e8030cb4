"""The place of an experiment: instances in each mode, started and removed through the public interface of vmctl."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from bench import atrest
from bench.labs import crowds, measuring
from bench.labs.lab import Evidence, Samples
from bench.model import Sample
from bench.probes import crowd, load, tool
from vmctl import backends, engine
from vmctl.comparing import inside, outside, running
from vmctl.errors import VmctlError
from vmctl.footprint import footprint
from vmctl.instances import instance
from vmctl.linux import processes
from vmctl.programs import module, run
from vmctl.spec.workload import Bytes, Resources, VmOptions, Workload

SCRIPT_S = 120.0
COMMAND_S = 600.0
HERE = "this machine"


class Room:
    """See Place. Facts and samples of one experiment are used again by the next one that asks for the same."""

    def __init__(self, options: Mapping[str, str], progress: running.Progress) -> None:
        self._options, self._progress = options, progress
        self._known: dict[object, Any] = {}
        self._started: dict[str, crowd.Started] = {}
        self._cleaning = ExitStack()
        self.parameters: Mapping[str, int] = {}  # of the lab that runs

    @contextmanager
    def cleaned(self) -> Iterator[None]:
        """Remove at the end of the block what has been started or made in it. Raises if that is not possible."""
        with ExitStack() as self._cleaning:
            yield

    def parameter(self, name: str) -> int:
        """See Place."""
        return self.parameters[name]

    def facts(self, modes: tuple[str, ...], image: str = "tiny", **limits: Any) -> Evidence:
        """See Place."""

        def look() -> Evidence:
            asked = running.Asked(_waiting(image=image, **limits), modes, self._options)
            found = running.compare(asked, self._progress)
            seen = {
                f"{mode}: {name}": text for mode, one in zip(modes, found, strict=True) for name, text in one.items()
            }
            return {**seen, **_here()}

        found: Evidence = self._once(("facts", modes, image, tuple(limits.items())), look)
        return found

    def ask(self, mode: str, *scripts: str, **keys: Any) -> list[str]:
        """See Place."""
        backend = backends.load(mode, options := backends.suited(mode, self._options))
        with ExitStack() as stack:
            started = []
            for number, _ in enumerate(scripts, 1):
                self._progress(f"{mode}: starting {number} of {len(scripts)}")
                work = _waiting(**keys)
                started.append(stack.enter_context(engine.running(work, backend, options=options)).inst.name)
            return [self.exec(name, script) for name, script in zip(started, scripts, strict=True)]

    def start(self, mode: str, script: str = "", **keys: Any) -> str:
        """See Place."""
        work = _waiting(script, **keys)
        self._progress(f"{mode}: starting {work.name}")
        self._cleaning.enter_context(crowd.removed([work.name]))
        started = crowd.start(work, mode, backends.suited(mode, self._options))
        self._started[started.name] = started
        return started.name

    def start_s(self, name: str) -> Samples:
        """See Place."""
        took_s = self._started[name].start_s()
        return Samples("s", () if took_s is None else (took_s,))

    def exec(self, name: str, script: str) -> str:
        """See Place."""
        answer = inside.ask(instance.load(name), ("sh", "-c", f"{{ {script}\n}} 2>&1"), SCRIPT_S)
        return f"{answer.text.strip()}\nexit {answer.code}".strip()

    def vmctl(self, *words: str) -> str:
        """See Place."""
        self._progress(f"vmctl {' '.join(words)}")
        code, out, errors = run(module("vmctl", *words), check=False, timeout_s=COMMAND_S)
        return f"{f'{out}{errors}'.strip()}\nexit {code}".strip()

    def image(self, *lines: str, files: Mapping[str, bytes] = {}) -> str:
        """See Place."""
        name = f"lab-{os.urandom(4).hex()}"
        self._cleaning.callback(self.vmctl, "image", "rm", "-f", name)
        with TemporaryDirectory(prefix="vmctl-lab-") as folder:
            for path, content in {**files, "Dockerfile": "\n".join(lines).encode()}.items():
                with open(os.path.join(folder, path), "wb") as file:
                    file.write(content)
            tool.build(folder, name, "an image of this lab cannot be made")
        return name

    def marked(self, name: str) -> list[int]:
        """See Place."""
        return outside.marked(instance.load(name).work.env[outside.MARK])

    def samples(
        self, kind: str, modes: tuple[str, ...], rounds: int = 1, instances: int = 1, **keys: Any
    ) -> Mapping[str, Sequence[Sample]]:
        """See Place."""

        def measure() -> Mapping[str, Sequence[Sample]]:
            before = _probe_images()
            try:
                return measuring.measure(
                    _waiting(**keys),
                    kind,
                    modes,
                    rounds,
                    instances=instances,
                    options=self._options,
                    progress=self._progress,
                )
            finally:
                for name in _probe_images() - before:
                    self.vmctl("image", "rm", name)

        key = (kind, modes, rounds, instances, repr(sorted(keys.items())))
        found: Mapping[str, Sequence[Sample]] = self._once(key, measure)
        return found

    def crowd(self, mode: str, count: int, **keys: Any) -> Mapping[str, Samples]:
        """See Place."""

        def start() -> Mapping[str, Samples]:
            self._progress(f"{mode}: starting {count}")
            works = [_waiting(**keys) for _ in range(count)]
            return crowds.measure(works, mode, backends.suited(mode, self._options))

        found: Mapping[str, Samples] = self._once(("crowd", mode, count, repr(sorted(keys.items()))), start)
        return found

    def spent_s(self, name: str) -> float:
        """See Place."""
        (row,) = json.loads(self._output("stats", "--no-stream", "--format", "json", name))
        return float(row["cpu_s"])

    def clones(self, name: str, count: int) -> list[str]:
        """See Place."""
        snapshot = f"lab-{os.urandom(4).hex()}"
        names = [f"{snapshot}-{number}" for number in range(1, count + 1)]
        self._cleaning.callback(self.vmctl, "snapshot", "rm", snapshot)
        self._cleaning.enter_context(crowd.removed(names))
        self._output("snapshot", name, snapshot)
        for clone in names:
            self._output("clone", snapshot, "--name", clone)
        return names

    def kernel(self, change: Callable[[bytes], bytes]) -> str:
        """See Place."""
        found = {row["name"]: row for row in json.loads(self._output("image", "kernel", "ls", "--format", "json"))}
        origin = found.get(VmOptions().kernel)
        if origin is None:
            raise VmctlError(f"the store has no kernel {VmOptions().kernel}", hint="`vmctl image kernel fetch`")
        name = f"lab-{os.urandom(4).hex()}"
        with TemporaryDirectory(prefix="vmctl-lab-") as folder:
            path = os.path.join(folder, os.path.basename(origin["image"]))
            with open(origin["image"], "rb") as file, open(path, "wb") as copy:
                copy.write(change(file.read()))
            self._cleaning.callback(self.vmctl, "image", "kernel", "rm", "--force", name)
            self._output("image", "kernel", "add", "--name", name, "--modules", origin["modules"], path)
        return name

    def _output(self, *words: str) -> str:
        """Return the output of a command of vmctl. Raises VmctlError if it fails."""
        self._progress(f"vmctl {' '.join(words)}")
        code, out, errors = run(module("vmctl", *words), check=False, timeout_s=COMMAND_S)
        if code:
            raise VmctlError(f"`vmctl {' '.join(words)}` has failed: {errors.strip()}")
        return out

    def memory(self, name: str) -> Samples:
        """See Place."""
        inst = instance.load(name)
        atrest.settle(inst, load.REPORT_S)
        found = footprint(inst)
        return Samples("bytes", (float(found.cgroup_bytes or found.pss_bytes or 0),))

    def _once(self, key: object, make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def problem(mode: str, options: Mapping[str, str]) -> str:
    """Return why this machine cannot run a mode, "" if it can."""
    try:
        engine.check(_waiting(), backends.load(mode, backends.suited(mode, options)))
    except VmctlError as error:
        return str(error)
    return ""


def _probe_images() -> set[str]:
    """Return the names of the images that the bench has made for its probe program."""
    _, out, _ = run(module("vmctl", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"), timeout_s=COMMAND_S)
    return {line for line in out.split() if line.startswith(f"{tool.IMAGE}:")}


def _waiting(script: str = "", **keys: Any) -> Workload:
    """Return a workload with these keys that runs a script, or waits; `cpus` and `memory_bytes` are its limits."""
    resources = Resources()
    if "memory_bytes" in keys:
        resources = resources._replace(memory_bytes=Bytes(int(str(keys.pop("memory_bytes")))))
    if "cpus" in keys:
        resources = resources._replace(cpus=float(str(keys.pop("cpus"))))
    name = f"lab-{os.urandom(4).hex()}"
    command = (*running.WAITS[:2], script or f"echo up; {running.WAITS[2]}")  # the first output ends the wait for it
    work = Workload(name=name, image="tiny", command=command, resources=resources, env={outside.MARK: name})
    changed: Workload = work._replace(**keys)
    return changed


def _here() -> Evidence:
    memory_kib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    return {
        f"{HERE}: kernel": os.uname().release,
        f"{HERE}: boot_id": processes.boot_id(),
        f"{HERE}: memory_kib": str(memory_kib),
        f"{HERE}: processors": str(os.cpu_count()),
    }
