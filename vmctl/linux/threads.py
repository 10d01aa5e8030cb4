"""Short-lived threads: what a thread does to itself, such as entering a namespace, is gone when it ends.

Each thread is in a network namespace, while descriptors belong to the process (network_namespaces(7)). So a thread can
enter one, make a socket there and end. This takes some 50 microseconds; a forked child that passes descriptors takes
ten times as long.
"""

from __future__ import annotations

import errno
from _thread import allocate_lock, start_new_thread

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> T:
    """Call `work` in a new thread and return its result or raise its error. Raises OSError if there can be no thread.

    It always waits for the end of `work`, also if a signal handler raises meanwhile: nothing goes on behind the caller.
    """
    ended = allocate_lock()
    ended.acquire()
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised in the caller
            errors.append(error)
        finally:
            ended.release()

    try:
        start_new_thread(body, ())
    except RuntimeError as error:  # the limit of processes
        raise OSError(errno.EAGAIN, str(error)) from error
    _wait(ended, lambda: bool(results or errors))
    if errors:
        raise errors[0]
    return results[0]


def _wait(ended: LockType, is_over: Callable[[], bool]) -> None:
    try:
        ended.acquire()
    except BaseException:
        if not is_over():  # a handler can also raise when the lock has just been acquired; it would never be again
            _wait(ended, is_over)
        raise
