"""What each saving of a guest's cold start gives (docs/boot.md): QEMU without them, with each one alone, with all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce

from bench.peers import guests
from bench.peers.containers import Contender

TITLE = "guest's cold start, with each saving alone"
NONE, ALL = "none of them", "all"
AT_MOST = 0.80  # of the start without savings

Words = list[str]


@contextmanager
def contenders(bzimage: str) -> Iterator[dict[str, Contender]]:
    """Lend the ways to start one guest, all with the same files; `bzimage` is its kernel as it was distributed.

    Raises VmctlError if that guest cannot be started.
    """
    with guests.prepared() as (argv, folder):
        yield {name: partial(guests.start, words, folder) for name, words in ways(argv, bzimage).items()}


def ways(argv: Words, bzimage: str) -> dict[str, Words]:
    """Return name -> QEMU's command line, from one with all savings; one that this host lacks is left out."""
    undo: dict[str, Callable[[Words], Words]] = {
        "uncompressed kernel": lambda words: _with(words, "-kernel", bzimage),
        "qboot": lambda words: _without(words, "-bios"),
        "used ports only": lambda words: [re.sub(r',"max_ports":\d+', "", word) for word in words],
        "no erms, fsrm": lambda words: _with(words, "-cpu", re.sub(r",(erms|fsrm)=off", "", _after(words, "-cpu"))),
    }
    undo = {name: function for name, function in undo.items() if function(argv) != argv}
    alone = {name: _applied([undo[other] for other in undo if other != name], argv) for name in undo}
    return {NONE: _applied(list(undo.values()), argv), **alone, ALL: argv}


def _applied(functions: Sequence[Callable[[Words], Words]], argv: Words) -> Words:
    return reduce(lambda words, function: function(words), functions, argv)


def _after(words: Words, option: str) -> str:
    return words[words.index(option) + 1]


def _with(words: Words, option: str, value: str) -> Words:
    place = words.index(option) + 1
    return [*words[:place], value, *words[place + 1 :]]


def _without(words: Words, option: str) -> Words:
    place = words.index(option) if option in words else len(words)
    return [*words[:place], *words[place + 2 :]]
