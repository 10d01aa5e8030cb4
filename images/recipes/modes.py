"""The modes of --chmod: octal ones, and symbolic ones as chmod(1) has them."""

from __future__ import annotations

import re
import stat

_OCTAL = re.compile(r"0?[0-7]{3,4}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_UMASK = 0o022  # without a letter in front, `+w` does not make a file writable for all
_MAX_LETTERS = 256


class Mode:
    """A mode of --chmod: it returns the mode that a file gets for the one that it has."""

    def __init__(self, text: str) -> None:
        """Raises ValueError if a text is not a mode."""
        self._octal = int(text, 8) if _OCTAL.fullmatch(text) else None
        clauses = [_CLAUSE.fullmatch(part) for part in text.split(",")] if len(text) <= _MAX_LETTERS else [None]
        if self._octal is None and not all(clauses):
            raise ValueError(f"expected a mode such as 0644, +x or u=rwX,go=rX, got {text[:40]}")
        self._clauses = [(one[1], _ACTION.findall(one[2])) for one in clauses if one]

    def __call__(self, mode: int) -> int:
        """Return a mode as st_mode has it, changed; its kind of file stays."""
        if self._octal is not None:
            return stat.S_IFMT(mode) | self._octal
        for whose, actions in self._clauses:
            for sign, letters in actions:
                mode = _changed(mode, whose, sign, letters)
        return mode


def _changed(mode: int, whose: str, sign: str, letters: str) -> int:
    whom = "ugo" if not whose or "a" in whose else whose
    bits = 0
    for one in whom:
        bits |= _permissions(mode, letters) << _SHIFT[one]
    if not whose:
        bits &= ~_UMASK
    if "s" in letters:
        bits |= (stat.S_ISUID if "u" in whom else 0) | (stat.S_ISGID if "g" in whom else 0)
    if "t" in letters and (not whose or "o" in whom):
        bits |= stat.S_ISVTX
    if sign == "-":
        return mode & ~bits
    if sign == "=":
        for one in whom:
            mode &= ~(0o7 << _SHIFT[one])
        if not stat.S_ISDIR(mode):  # a folder keeps these, as with chmod(1)
            mode &= ~((stat.S_ISUID if "u" in whom else 0) | (stat.S_ISGID if "g" in whom else 0))
        if not whose or "o" in whom:
            mode &= ~stat.S_ISVTX
    return mode | bits


def _permissions(mode: int, letters: str) -> int:
    """Return the three bits that letters mean; X is x for a folder, and for what somebody can execute."""
    if letters in _SHIFT:
        return mode >> _SHIFT[letters] & 0o7
    executable = stat.S_ISDIR(mode) or mode & 0o111
    return (
        (0o4 if "r" in letters else 0)
        | (0o2 if "w" in letters else 0)
        | (0o1 if "x" in letters or ("X" in letters and executable) else 0)
    )
