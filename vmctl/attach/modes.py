"""What a command has switched on in the caller's terminal, to switch it off if the command does not do it itself.

A command that is killed in the middle, or left by the detach keys, leaves the alternate screen, the mouse, a hidden
cursor or a colour behind. See ctlseqs(7) of xterm: DEC private modes, SGR.
"""

from __future__ import annotations

from vmctl.light import pattern

_SEQUENCE = pattern(rb"\x1b(?:\[\?([0-9;]*)([hl])|\[([0-9;:]*)m|([=>c]))")
# a sequence without its end: a control string takes all text up to it (ECMA-48, 5.6)
_UNFINISHED = pattern(rb"\x1b(?:[\]PX^_][^\x07\x18\x1a]*|\[[0-?]*[ -/]*)?\Z")
_CANCEL = b"\x18"  # CAN: terminals drop the sequence, where ST would carry it out
_LONGEST = 40  # of a sequence whose end has not arrived
_ON = {7, 25}  # on in a terminal by default: lines wrap, the cursor is visible
_OFF = {1, 9, 47, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1047, 1049, 2004, 2026}


class Modes:
    """Follows the output of a command."""

    def __init__(self) -> None:
        self._rest = self._open = b""
        self._changed: dict[int, bool] = {}
        self._colour = self._keypad = False

    def see(self, data: bytes) -> None:
        """Note what these bytes switch on and off, and whether a sequence is unfinished after them."""
        self._note_modes(data)
        begin = data.rfind(b"\x1b")
        if begin >= 0 or self._open:
            text = data[begin:] if begin >= 0 else self._open + data
            self._open = text[:2] if _UNFINISHED.match(text) else b""

    def _note_modes(self, data: bytes) -> None:
        if b"\x1b" not in data and not self._rest:
            return
        data = self._rest + data
        for modes, switch, colour, single in _SEQUENCE.findall(data):
            if switch:
                self._switch(modes, on=switch == b"h")
            elif single == b"c":  # the terminal is reset
                self.__init__()  # type: ignore[misc]
            elif single:
                self._keypad = single == b"="
            else:
                self._colour = colour.rpartition(b";")[2].strip(b"0") != b""
        last = data.rfind(b"\x1b", -_LONGEST)
        self._rest = data[last:] if last >= 0 and not _SEQUENCE.match(data, last) else b""

    def _switch(self, modes: bytes, *, on: bool) -> None:
        for number in map(int, filter(None, modes.split(b";"))):
            if number in _ON | _OFF:
                self._changed.pop(number, None)
                if on != (number in _ON):
                    self._changed[number] = on

    def undo(self) -> bytes:
        """Return what switches everything back; nothing if nothing is left behind."""
        back = [b"\x1b[?%d%c" % (number, b"l"[0] if on else b"h"[0]) for number, on in self._changed.items()]
        colour, keypad = b"\x1b[0m" * self._colour, b"\x1b>" * self._keypad
        return _CANCEL * bool(self._open) + colour + b"".join(back) + keypad
