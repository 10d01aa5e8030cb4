"""Ask a person on a terminal, or read the answer from a script's input."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vmctl.errors import SpecError


def line(question: str, flag: str, of: str = "lab") -> str:
    """Return a line of the input. Raises SpecError at its end; `flag` is what has asked for it, once for each `of`."""
    sys.stdout.flush()
    sys.stderr.write(question)
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        raise SpecError(f"{flag} reads a line for each {of} from standard input", hint=f"leave {flag} out")
    return answer


def choice(question: str, choices: Sequence[str], of: str = "lab") -> str:
    """Return the one of the choices that begins with the answer; ask again until it does. Raises SpecError."""
    while True:
        begun = line(question, "--predict", of).strip().lower()
        matching = [one for one in choices if begun and one.startswith(begun)]
        if len(matching) == 1:
            return matching[0]
