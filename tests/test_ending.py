"""A signal that ends a command, at the worst moment: while it imports what it needs."""

import subprocess
import sys

# Children import msgspec, which is interrupted after up to 20 ms, and then use it. They write what became of them.
IMPORTING = """
import os, signal, time
from vmctl import interrupts

def child():
    for signum in interrupts.ENDING:
        signal.signal(signum, interrupts.end)
    try:
        try:
            os.write(ready[1], b"x")  # the signal can arrive before this returns
            import msgspec
            while True:  # pause(2) would miss a signal that arrives just before it
                time.sleep(0.01)
        finally:
            import msgspec
            assert msgspec.convert({"a": 1}, dict[str, int | None]) == {"a": 1}
    except SystemExit as error:
        os._exit(error.code)

ready = os.pipe()
for number in range(100):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(1)
    os.read(ready[0], 1)
    time.sleep(0.0002 * number)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_an_import_is_whole_before_the_command_ends():
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.split() == ["143"] * 100
