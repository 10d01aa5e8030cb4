"""The pause before a restart: a bare interpreter that sleeps, and then becomes restart.py.

The signal by which `stop` forbids the restart ends it.
"""

from __future__ import annotations

import os
import time


def main(delay_s: str, held: str, *command: str) -> None:
    """Sleep, then execute the command, which inherits the descriptor `held`, if there is one."""
    time.sleep(float(delay_s))
    if int(held) >= 0:
        os.set_inheritable(int(held), True)
    os.execve(command[0], command, os.environ)
