"""Short-lived threads: the caller gets the result, and waits for the end, also if a signal handler raises."""

import random
import signal

from vmctl.linux.threads import in_thread


class AlarmError(Exception):
    pass


def test_a_handler_that_raises_at_any_moment_leaves_no_wait_without_an_end():
    def ring(*_):
        raise AlarmError

    before, choose, rung = signal.signal(signal.SIGALRM, ring), random.Random(1), 0
    try:
        for _ in range(5000):
            try:
                signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-6, 150e-6))
                in_thread(lambda: None)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except AlarmError:
                rung += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung > 100
