"""Short-lived threads: the caller gets the result, and waits for the end, also if a signal handler raises."""

import random
import signal

from vmctl.linux.threads import in_thread


class AlarmError(Exception):
    pass


def test_a_handler_that_raises_at_any_moment_leaves_no_wait_without_an_end():
    armed = False

    def ring(*_):
        nonlocal armed
        if armed:  # another thread may get the signal: then this one handles it late, after the next timer was set
            armed = False
            raise AlarmError

    before, choose, rung = signal.signal(signal.SIGALRM, ring), random.Random(1), 0
    try:
        for _ in range(5000):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-6, 150e-6))
                in_thread(lambda: None)
                signal.setitimer(signal.ITIMER_REAL, 0)
                armed = False
            except AlarmError:
                rung += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung > 100
