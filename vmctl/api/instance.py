"""An instance, as a program has it in its hands."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from vmctl.api.client import Call, ask
from vmctl.api.commands import LIMIT_BYTES, Line, Result, Running, TooMuchOutput, collected
from vmctl.errors import NotFoundError, SpecError

if TYPE_CHECKING:
    from typing import Literal

    from vmctl.api.snapshot import Snapshot

    Path = str | os.PathLike[str]
    Variables = Mapping[str, object] | Sequence[str]
    Stream = Literal["both", "stdout", "stderr", "console"]

_TAR_BYTES = 1 << 16  # headers around the content of one file


class Status(NamedTuple):
    """Whether an instance runs, and how it has ended."""

    status: str  # as in `vmctl ps`: created, running, paused, restarting, suspended, exited, failed
    exit_code: int | None
    exit_source: str | None  # workload, signal, oom, vmctl or unknown
    reason: str


class Exit(NamedTuple):
    """How a workload has ended: exit code (128+n for signal n), and what has ended it."""

    code: int
    source: str


class Known:
    """What a program knows of an instance."""

    def __init__(self, values: Mapping[str, Any], *, keep: bool) -> None:
        self.name: str = values["name"]
        self.id: str = values["id"]  # 8 hex digits: distinguishes it from a later one of the same name
        self.mode: str = values["mode"]
        self.image: str = values["image"]
        self.image_digest: str | None = values["image_digest"]
        self.address: str | None = values["address"]  # in the network of instances; None without one
        self.accelerator: str | None = values["accelerator"]  # of a guest: kvm or tcg
        self.workload_digest: str = values["workload_digest"]  # as in `vmctl inspect`
        self.seconds: float | None = values["seconds"]  # until it was ready, or ran if it has no probe
        self.warnings: tuple[str, ...] = tuple(values["warnings"])
        self.kept = keep  # whether it stays after its block

    @property
    def key(self) -> dict[str, str]:
        """Name and id, by which each request names it."""
        return {"name": self.name, "id": self.id}

    def __repr__(self) -> str:
        return f"<vmctl.Instance {self.name} of {self.image} in mode {self.mode}>"


class Instance(Known):
    """A running workload. As a context manager it is removed at the end of the block, unless it is kept.

    Instances that a program has started and not kept are also removed when the program ends, however it ends. All
    methods can be called by several threads at the same time.
    """

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.kept:
            self.remove()

    def exec(
        self,
        command: Sequence[str],
        *,
        check: bool = False,
        input: str | bytes | IO[Any] | None = None,  # noqa: A002 - as in subprocess.run
        env: Variables = (),
        env_file: Sequence[Path] = (),
        workdir: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        on_line: Callable[[Line], object] | None = None,
        limit: int = LIMIT_BYTES,
    ) -> Result:
        """Run another command in it and return its result.

        `input` is its standard input: a text, bytes, or an open file. `on_line` is called with each line as it comes.
        Raises CommandFailed with `check` for a code other than 0, CommandTimeout after `timeout` seconds, TooMuchOutput
        for more than `limit` bytes, CommandNotFoundError, StateError if the instance does not run.
        """
        running = self.stream(command, input=input, env=env, env_file=env_file, workdir=workdir, user=user)
        return collected(running, timeout, limit, on_line, check=check)

    def stream(
        self,
        command: Sequence[str],
        *,
        input: str | bytes | IO[Any] | None = None,  # noqa: A002 - as in subprocess.run
        env: Variables = (),
        env_file: Sequence[Path] = (),
        workdir: str | None = None,
        user: str | None = None,
    ) -> Running:
        """Start another command in it; iterate over what is returned for its lines, then see its `result`."""
        flags = {
            "env": texts(env),
            "env_file": [os.fspath(path) for path in env_file],
            "workdir": workdir,
            "user": user,
        }
        return Running(self, command, input, flags)

    def write(self, path: str, data: str | bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Write a file inside; its folder has to exist. Raises NotFoundError if it does not."""
        from vmctl.copying import tar

        raw = data.encode() if isinstance(data, str) else data
        folder, name = _split(path)
        entry = tar.Entry(os.fsencode(name), tar.FILE, mode, len(raw), uid=uid, gid=gid)
        fd = os.memfd_create("tar")
        with os.fdopen(fd, "wb") as file:
            for part in (tar.header(entry), raw, tar.padding(len(raw)), tar.END):
                file.write(part)
            file.flush()
            os.lseek(fd, 0, os.SEEK_SET)
            left_out = Call("tar_in", {**self.key, "path": folder}, [fd]).result()
        if left_out:
            raise SpecError(f"{path} cannot be written in {self.name}: {left_out[0]}")

    def read(self, path: str, *, limit: int = LIMIT_BYTES) -> bytes:
        """Return the content of a file inside; links are followed there.

        Raises NotFoundError if it does not exist or is not a file, TooMuchOutput for more than `limit` bytes.
        """
        from vmctl.copying import tar

        _split(path)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        source, sink = os.pipe()
        try:
            call = Call("tar_out", {**self.key, "path": path}, [null, sink])
        finally:
            os.close(null)
            os.close(sink)
        found, part = bytearray(), b"-"
        with os.fdopen(source, "rb", buffering=0) as file:
            try:
                while part and len(found) <= limit + _TAR_BYTES:
                    found += (part := file.read(1 << 18))
                if len(found) > limit + _TAR_BYTES:
                    raise TooMuchOutput(f"{path} in {self.name} has more than {limit} bytes", hint="limit=BYTES")
            except BaseException:
                call.abandon()
                raise
        call.result()
        view = memoryview(bytes(found))

        def read(count: int) -> bytes:
            nonlocal view
            data, view = bytes(view[:count]), view[count:]
            return data

        reader = tar.Reader(read)
        for entry in reader.entries():
            if entry.kind == tar.FILE and entry.size <= limit:
                return b"".join(reader.content())
            break
        raise NotFoundError(f"{path} in {self.name} is not a file")

    def copy(self, source: Path, target: Path, *, archive: bool = False, follow: bool = False) -> list[str]:
        """Copy a file or folder by the rules of cp(1): in `:PATH`, the colon means that the path is inside.

        Returns a text for each file that is left out. `archive` keeps owners and groups, `follow` copies what a link
        leads to. Raises NotFoundError, ConflictError, SpecError unless exactly one of both is inside.
        """
        ends = [os.fspath(source), os.fspath(target)]
        into = ends[1].startswith(":")
        if into == ends[0].startswith(":"):
            raise SpecError(
                f"one of {ends[0]!r} and {ends[1]!r} has to begin with a colon: it is the path in {self.name}",
                hint='copy("data.sql", ":/tmp"), or copy(":/etc/hosts", ".")',
            )
        first, last = (end.removeprefix(":") if end.startswith(":") else end for end in ends)
        found = ask("copy", **self.key, source=first, target=last, into=into, archive=archive, follow=follow)
        return list(found)

    def wait(
        self,
        *,
        port: int | None = None,
        log: str | None = None,
        http: str | None = None,
        healthy: bool = False,
        timeout: float | None = None,
    ) -> float:
        """Wait until it is ready, and return the seconds that it took.

        Ready means all that is given: `port` accepts connections inside, the output has a match of the regular
        expression `log`, a GET of `http` (PORT/path) succeeds, the health check succeeds. Without any: the `ready` of
        its workload file. After `timeout` seconds (default: 60) raises NotReady, or EndedEarly if it ends before; the
        error has the last lines of its output.
        """
        given = {"port": port, "log": log, "http": http, "healthy": healthy, "timeout_s": timeout}
        return float(ask("wait", **self.key, **given))

    def wait_exit(self, timeout: float | None = None) -> Exit:
        """Wait until its workload ends, and return how. Raises DeadlineError after `timeout` seconds."""
        return Exit(**ask("wait_exit", **self.key, timeout_s=timeout))

    def logs(self, *, tail: int | None = None, stream: Stream = "both") -> str:
        """Return its output so far, in the order of its lines; `console` is what a guest's kernel has written."""
        parts: list[str] = []
        call = Call("logs", {**self.key, "tail": tail, "stream": stream, "follow": False})
        call.result(lambda _, line: parts.append(line[1]))
        return "".join(parts)

    def follow(self, *, tail: int | None = None, stream: Stream = "both") -> Iterator[Line]:
        """Yield the lines of its output, and those that come, until it ends or the loop is left."""
        for lines in self.follow_blocks(tail=tail, stream=stream):
            yield from lines

    def follow_blocks(self, *, tail: int | None = None, stream: Stream = "both") -> Generator[list[Line], None, None]:
        """Yield the same lines, those that come together in one list."""
        call = Call("logs", {**self.key, "tail": tail, "stream": stream, "follow": True})
        try:
            while not call.over:
                events = [values for event, values in call.events() if event == "line"]
                yield [Line(values[0], values[1].removesuffix("\n"), values[2]) for values in events]
        finally:
            if not call.over:
                call.abandon()

    def diff(self) -> list[tuple[str, str]]:
        """Return the files that differ from its image: A (added), C (changed) or D (deleted), and the path."""
        return [(kind, path) for kind, path in ask("diff", **self.key)]

    def ports(self) -> dict[str, tuple[str, int]]:
        """Return address and port on the host of each published port, such as {"80/tcp": ("127.0.0.1", 40123)}."""
        return {f"{port}/{protocol}": (host, host_port) for host, host_port, port, protocol in ask("ports", **self.key)}

    def port(self, port: int, protocol: str = "tcp") -> int:
        """Return the port of the host at which a port is published. Raises NotFoundError if it is not."""
        return self.endpoint(port, protocol)[1]

    def endpoint(self, port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Return address and port of the host at which a port is published. Raises NotFoundError if it is not."""
        try:
            return self.ports()[f"{port}/{protocol}"]
        except KeyError:
            raise NotFoundError(
                f"{self.name} does not publish its port {port}/{protocol}", hint=f"vmctl.run(..., ports=[{port}])"
            ) from None

    def status(self) -> Status:
        """Return whether it runs, as the kernel reports it now."""
        return Status(**ask("status", **self.key))

    def stop(self, timeout: float | None = None) -> None:
        """Ask its workload to end, and end it after `timeout` seconds (default: that of the workload)."""
        ask("stop", **self.key, timeout_s=timeout)

    def start(self, *, wait: bool = True, cold: bool = False) -> None:
        """Start it again after its end, or let it go on if it is suspended; with `cold` it begins anew.

        Nothing happens if it runs. Its ports may be others than before.
        """
        ask("start", **self.key, wait=wait, cold=cold)

    def pause(self) -> None:
        """Stop all of its processes, or its guest, where they are, in memory. Raises StateError if it does not run."""
        ask("pause", **self.key)

    def unpause(self) -> None:
        """Let it go on after `pause`. Raises StateError if it is not paused."""
        ask("unpause", **self.key)

    def suspend(self) -> None:
        """Save the memory of its guest to the disk, and end it until `resume`.

        Raises UnavailableError if it is not a guest, or cannot be saved, StateError if it does not run.
        """
        ask("suspend", **self.key)

    def resume(self, *, wait: bool = True) -> None:
        """Let it go on after `suspend`; its ports may be others than before. Raises StateError if it is not."""
        ask("resume", **self.key, wait=wait)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal, by name or number, to its workload."""
        ask("kill", **self.key, signal=int(signal) if isinstance(signal, int) else signal)

    def remove(self) -> None:
        """Remove it, also if it runs; nothing happens if it is gone."""
        ask("remove", **self.key)

    def keep(self) -> None:
        """Let it stay after the block and after the program: `vmctl down NAME` removes it."""
        self.kept = True
        ask("keep", **self.key)

    def snapshot(self, name: str | None = None) -> Snapshot:
        """Take a snapshot that others can be started from; it goes on if it runs. Raises ConflictError, StateError.

        A snapshot stays until it is removed, or until the end of its `with` block.
        """
        from vmctl.api.snapshot import Snapshot

        chosen = name or f"{self.name[:54]}-{os.urandom(4).hex()}"
        return Snapshot(Call("snapshot", {**self.key, "snapshot": chosen}).result(undo=_remove_snapshot))


def _remove_snapshot(values: Mapping[str, Any]) -> None:
    ask("remove_snapshot", snapshot=values["name"])


def texts(variables: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Return NAME=VALUE for each variable; None as a value means the caller's."""
    if not isinstance(variables, Mapping):
        return list(variables)
    return [name if value is None else f"{name}={value}" for name, value in variables.items()]


def _split(path: str) -> tuple[str, str]:
    """Return folder and name of a file inside. Raises SpecError."""
    folder, _, name = path.rpartition("/")
    if not path.startswith("/") or name in ("", ".", "..") or "\0" in path:
        raise SpecError(f"{path!r} is not the path of a file inside", hint="it begins with /, such as /etc/app.conf")
    return folder or "/", name
