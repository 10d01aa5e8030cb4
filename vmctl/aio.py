"""The Python API for asyncio: the same names, awaited.

`async with vmctl.aio.run("tiny") as db:` or `db = await vmctl.aio.run("tiny")`. Each call is done by a separate thread,
which waits for a process of vmctl; if the task is cancelled, that process is asked to end and waited for, and what it
has started by then is removed.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, Concatenate, Generic, ParamSpec, TypeVar

from vmctl.api import instance as sync
from vmctl.api import snapshot as saved
from vmctl.api import starting
from vmctl.api.client import GRACE_S, Call, watched
from vmctl.api.commands import Line, Result
from vmctl.api.commands import Running as SyncRunning

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class _Context(Generic[T]):
    """What can be awaited, or be the context of `async with`."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], leave: Callable[[T], Awaitable[None]]) -> None:
        self._make, self._leave = make, leave
        self._value: T

    def __await__(self) -> Generator[Any, Any, T]:
        return self._make().__await__()

    async def __aenter__(self) -> T:
        self._value = await self._make()
        return self._value

    async def __aexit__(self, *_: object) -> None:
        await self._leave(self._value)


async def _do(work: Callable[[], T], undo: Callable[[T], object] = lambda value: None) -> T:
    """Return what `work` returns, which is done by a thread; if this is cancelled, what it returns goes to `undo`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    calls: list[Call] = []

    def act() -> None:
        watched(calls)
        try:
            value = work()
        except BaseException as error:
            _report(loop, future.set_exception, error)
        else:
            _report(loop, future.set_result, value)

    threading.Thread(target=act, name="vmctl", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            for call in [*calls]:
                call.interrupt()
            await asyncio.wait([future], timeout=GRACE_S)
        if future.exception() is None:
            value = future.result()
            await _do(lambda: undo(value))
        raise


def _report(loop: asyncio.AbstractEventLoop, report: Callable[[S], None], value: S) -> None:
    with suppress(RuntimeError):  # the loop was closed, so nobody waits
        loop.call_soon_threadsafe(report, value)


def _method(
    function: Callable[Concatenate[sync.Instance, P], T],
) -> Callable[Concatenate[Instance, P], Coroutine[Any, Any, T]]:
    """Return a method of the same name and parameters that is awaited."""

    async def method(self: Instance, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _do(lambda: function(self.sync, *args, **kwargs))

    functools.update_wrapper(method, function)
    return method


class Instance(sync.Known):
    """See vmctl.Instance; an asynchronous context manager. `sync` is the instance for code that does not await."""

    def __init__(self, inst: sync.Instance) -> None:
        vars(self).update(vars(inst))
        self.sync = inst

    exec = _method(sync.Instance.exec)
    write = _method(sync.Instance.write)
    read = _method(sync.Instance.read)
    copy = _method(sync.Instance.copy)
    wait = _method(sync.Instance.wait)
    wait_exit = _method(sync.Instance.wait_exit)
    logs = _method(sync.Instance.logs)
    ports = _method(sync.Instance.ports)
    diff = _method(sync.Instance.diff)
    port = _method(sync.Instance.port)
    endpoint = _method(sync.Instance.endpoint)
    status = _method(sync.Instance.status)
    stop = _method(sync.Instance.stop)
    start = _method(sync.Instance.start)
    pause = _method(sync.Instance.pause)
    unpause = _method(sync.Instance.unpause)
    suspend = _method(sync.Instance.suspend)
    resume = _method(sync.Instance.resume)
    kill = _method(sync.Instance.kill)
    remove = _method(sync.Instance.remove)
    keep = _method(sync.Instance.keep)

    async def __aenter__(self) -> Instance:
        return self

    async def __aexit__(self, *_: object) -> None:
        await _do(self.sync.__exit__)

    def stream(
        self,
        command: Sequence[str],
        *,
        input: str | bytes | IO[Any] | None = None,  # noqa: A002 - as in subprocess.run
        env: sync.Variables = (),
        env_file: Sequence[sync.Path] = (),
        workdir: str | None = None,
        user: str | None = None,
    ) -> _Context[Running]:
        """Start another command in it; `async with` or await it, then iterate over its lines by `async for`."""
        start = functools.partial(
            self.sync.stream, command, input=input, env=env, env_file=env_file, workdir=workdir, user=user
        )

        async def make() -> Running:
            return Running(await _do(start, SyncRunning.kill))

        return _Context(make, Running.kill)

    async def follow(self, *, tail: int | None = None, stream: sync.Stream = "both") -> AsyncIterator[Line]:
        """Yield the lines of its output, and those that come, until it ends or the loop is left."""
        blocks = self.sync.follow_blocks(tail=tail, stream=stream)
        try:
            async for line in _lines(blocks):
                yield line
        finally:
            await _do(blocks.close)

    def snapshot(self, name: str | None = None) -> _Context[Snapshot]:
        """Take a snapshot; await it, or `async with` to have it removed."""

        async def make() -> Snapshot:
            return Snapshot(await _do(lambda: self.sync.snapshot(name), saved.Snapshot.remove))

        return _Context(make, Snapshot.remove)


class Running:
    """See vmctl.Running."""

    def __init__(self, running: SyncRunning) -> None:
        self.sync = running

    def __aiter__(self) -> AsyncIterator[Line]:
        return _lines(self.sync.line_blocks())

    async def result(self) -> Result:
        """Return how it has ended, after the end of its output."""
        return await _do(lambda: self.sync.result)

    async def kill(self) -> None:
        """End it."""
        await _do(self.sync.kill)


async def _lines(blocks: Iterator[list[Line]]) -> AsyncIterator[Line]:
    none: list[Line] = []
    while (lines := await _do(lambda: next(blocks, none))) is not none:
        for line in lines:
            yield line


class Snapshot:
    """See vmctl.Snapshot."""

    def __init__(self, found: saved.Snapshot) -> None:
        self.sync, self.name, self.mode = found, found.name, found.mode

    def clone(self, **how: Any) -> _Context[Instance]:
        """Start one clone, with the parameters of vmctl.Snapshot.clone."""
        return _starting(functools.partial(self.sync.clone, **how))()

    def clones(self, count: int, **how: Any) -> _Context[list[Instance]]:
        """Start clones, with the parameters of vmctl.Snapshot.clones."""

        async def make() -> list[Instance]:
            return [Instance(one) for one in await _do(lambda: self.sync.clones(count, **how), saved.Clones.remove)]

        async def leave(found: list[Instance]) -> None:
            await _do(saved.Clones([one.sync for one in found]).remove)

        return _Context(make, leave)

    async def remove(self) -> None:
        """Remove it."""
        await _do(self.sync.remove)


def _starting(function: Callable[P, sync.Instance]) -> Callable[P, _Context[Instance]]:
    """Return a function of the same name and parameters whose result is awaited, or the context of `async with`."""

    def start(*args: P.args, **kwargs: P.kwargs) -> _Context[Instance]:
        async def make() -> Instance:
            return Instance(await _do(lambda: function(*args, **kwargs), sync.Instance.__exit__))

        return _Context(make, lambda inst: inst.__aexit__())

    return start


run = _starting(starting.run)
up = _starting(starting.up)


async def find(name: str) -> Instance:
    """Return the instance of a name, which something else has started. Raises NoSuchInstance."""
    return Instance(await _do(lambda: starting.find(name)))


def _function(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return a function of the same name and parameters that is awaited."""

    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await _do(lambda: function(*args, **kwargs))

    functools.update_wrapper(call, function)
    return call


compare = _function(starting.compare)
