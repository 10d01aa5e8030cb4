"""An instance as the bench has it, for the tests of what is measured there."""

from contextlib import contextmanager

from bench.probes import Request, tool


@contextmanager
def started(work, mode):
    """Lend the start of an instance; it is removed at the end."""
    with tool.running(Request(work, work.name, mode)) as start:
        yield start
