"""The keys by which a caller leaves a terminal and lets the command run on, such as ctrl-p,ctrl-q."""

from __future__ import annotations

import os

from vmctl.errors import SpecError

DEFAULT = "ctrl-p,ctrl-q"
VARIABLE = "VMCTL_DETACH_KEYS"
WAIT_S = 1.0  # so long the first keys are held back: after that they are for the command
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"  # 0 to 31, as a terminal sends them (ascii(7))


def parse(text: str | None) -> bytes:
    """Return the bytes of keys: letters and ctrl-LETTER, separated by commas; b"" for none.

    None: those of the environment, or the default. Raises SpecError.
    """
    if text is None:
        text = os.environ.get(VARIABLE, DEFAULT)
    if text in ("", "none"):
        return b""
    return bytes(_code(key) for key in text.split(","))


def _code(key: str) -> int:
    name = key.lower()
    if len(key) == 1 and key.isascii():
        return ord(key)
    if name.startswith("ctrl-") and len(name) == 6 and name[5] in _CONTROL:
        return _CONTROL.index(name[5])
    raise SpecError(
        f"{key!r} cannot be a key to detach",
        hint=f"keys are letters and ctrl-LETTER, such as {DEFAULT}; `none` switches them off",
    )


class Keys:
    """Looks for the keys in what is typed."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self.held = b""  # the beginning of the keys, which may be for the command
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        """Return what is for the command, without what follows the complete keys."""
        if not self._keys:
            return data
        data = self.held + data
        at = data.find(self._keys)
        if at >= 0:
            self.complete, self.held = True, b""
            return data[:at]
        size = next(size for size in range(len(self._keys) - 1, -1, -1) if data.endswith(self._keys[:size]))
        self.held = data[len(data) - size :]
        return data[: len(data) - size]

    def release(self) -> bytes:
        """Return what was held back."""
        held, self.held = self.held, b""
        return held
