"""The usual command lines, read without argparse: importing it and making a parser would be 7 ms of each start.

`parse` understands flags and values that are written as they are declared. For everything else, such as --help, an
abbreviation or a mistake, it returns None, and argparse reads the same declarations.
"""

from __future__ import annotations

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Sequence
    from typing import Any

REST = "..."  # argparse.REMAINDER: all words from here on
_CONSTANTS = {"store_true": True, "store_false": False}
_OPTIONS = {"dest", "nargs", "type", "default", "choices", "metavar", "help"}


def parse(declare: Callable[[ArgumentParser], None], words: Sequence[str]) -> Namespace | None:
    """Return the arguments in the words of a verb that `declare` declares, or None if only argparse can read them."""
    try:
        reader = _Reader(words)
        declare(reader)  # type: ignore[arg-type]
        reader.read()
    except _UnusualError:
        return None
    arguments = _Arguments()
    vars(arguments).update(reader.values)
    return arguments  # type: ignore[return-value]


class _UnusualError(Exception):
    """A declaration or a command line that only argparse understands."""


class _Arguments:
    """The attributes of argparse.Namespace."""


class _Argument:
    """One declaration."""

    def __init__(self, *names: str, action: Any = "store", **options: Any) -> None:
        long = [name for name in names if name.startswith("--")]
        self.dest = options.get("dest") or (long or names)[0].lstrip("-").replace("-", "_")
        self.constant, self.appends = _CONSTANTS.get(action), action == "append"
        self.default = options.get("default", None if self.constant is None else not self.constant)
        self.nargs, self.type, self.choices = options.get("nargs"), options.get("type", str), options.get("choices")
        known = action in ("store", "append", *_CONSTANTS) and options.keys() <= _OPTIONS
        if not known:
            raise _UnusualError
        if isinstance(self.default, str) and self.type is not str:  # as argparse does
            self.default = self.value(self.default)

    def value(self, word: str) -> Any:
        """Return the value of a word."""
        try:
            value = self.type(word)
        except Exception as error:  # argparse reports it
            raise _UnusualError from error
        if word == "--" or (self.choices is not None and value not in self.choices):
            raise _UnusualError
        return value


class _Reader:
    """Takes the place of an argparse parser, and reads the words of one command line."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.values: dict[str, Any] = {}
        self._left = list(reversed(words))
        self._flags: dict[str, _Argument] = {}
        self._positionals: list[_Argument] = []  # those without a value so far

    def __getattr__(self, name: str) -> Any:
        raise _UnusualError  # of argparse: groups, subparsers

    def add_argument(self, *names: str, **options: Any) -> None:
        """Declare an argument: see argparse."""
        one = _Argument(*names, **options)
        if not names[0].startswith("-"):
            self._positionals.append(one)
        elif one.nargs is not None or self._flags.keys() & set(names):  # two with one name: argparse reports it
            raise _UnusualError
        else:
            self._flags.update(dict.fromkeys(names, one))
        self.values.setdefault(one.dest, one.default)

    def read(self) -> None:
        """Set `values` from the words."""
        last = self._positionals[-1].nargs if self._positionals else None
        alone = len(self._positionals) == 1
        able = last in (None, REST, "?") or (last in "*+" and alone)
        if any(one.nargs for one in self._positionals[:-1]) or not able:
            raise _UnusualError
        while self._left:
            if _is_value(self._left[-1]):
                self._read_positionals()
            else:
                self._read_flag(self._left.pop())
        for one in self._positionals:
            if one.nargs not in ("*", "?", REST):
                raise _UnusualError
            if one.nargs != "?" and (self.values[one.dest] is None or one.nargs == REST):
                self.values[one.dest] = []

    def _read_flag(self, word: str) -> None:
        name, equals, text = word, "", ""
        if word not in self._flags and word.startswith("--"):
            name, equals, text = word.partition("=")
        flag = self._flags.get(name)
        if flag is None or (flag.constant is not None and equals):
            raise _UnusualError
        if flag.constant is not None:
            self.values[flag.dest] = flag.constant
            return
        if not equals and not (self._left and _is_value(self._left[-1])):
            raise _UnusualError
        value = flag.value(text if equals else self._left.pop())
        self.values[flag.dest] = [*(self.values[flag.dest] or ()), value] if flag.appends else value

    def _read_positionals(self) -> None:
        """Read the words up to a flag; the rest of the words belongs to the argument that takes it, with all flags."""
        if not self._positionals:
            raise _UnusualError
        while self._positionals and self._positionals[0].nargs is None and self._left and _is_value(self._left[-1]):
            one = self._positionals.pop(0)
            self.values[one.dest] = one.value(self._left.pop())
        if not self._positionals or self._positionals[0].nargs is None:
            return
        one = self._positionals.pop(0)
        if one.nargs == "?":  # only directly after the one before it, as with argparse
            if self._left and _is_value(self._left[-1]):
                self.values[one.dest] = one.value(self._left.pop())
            return
        if self._left and self._left[-1] == "--":  # argparse counts it to the argument before
            self._left.pop()
        self.values[one.dest] = found = []
        while self._left and (one.nargs == REST or _is_value(self._left[-1])):
            found.append(self._left.pop() if one.nargs == REST else one.value(self._left.pop()))


def _is_value(word: str) -> bool:
    return word[:1] != "-" or word == "-"
