"""The files of a context that a build does not see: .dockerignore.

See docs.docker.com/build/concepts/context/#dockerignore-files; patterns are those of Go's filepath.Match, and `**`.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import NamedTuple

from images.recipes.lines import STDIN
from vmctl.errors import SpecError
from vmctl.spec import textfile

NAME = ".dockerignore"
MAX_BYTES = 1 << 20


class _Rule(NamedTuple):
    matches: re.Pattern[str]
    keeps: bool  # it began with `!`


class Ignore:
    """The patterns of a .dockerignore; the last one that matches decides."""

    def __init__(self, rules: tuple[_Rule, ...] = ()) -> None:
        self._rules = rules

    def __call__(self, path: str) -> bool:
        """Return whether a path, relative to the context, is left out, or a folder above it."""
        pieces = path.split("/")
        candidates = ["/".join(pieces[: count + 1]) for count in range(len(pieces))]
        left_out = False
        for rule in self._rules:
            if rule.keeps == left_out and any(map(rule.matches.fullmatch, candidates)):
                left_out = not rule.keeps
        return left_out

    @property
    def may_keep_below(self) -> bool:
        """Whether a folder that is left out can contain a file that is not."""
        return any(rule.keeps for rule in self._rules)


def read(context: str, build_file: str = "") -> Ignore:
    """Return the patterns of a context: those next to the build file (FILE.dockerignore) or the context's own."""
    for path in (build_file + NAME, os.path.join(context, NAME)):
        if path in (NAME, STDIN + NAME):  # there is no build file
            continue
        try:
            raw = textfile.content(path, MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise SpecError(f"{path} cannot be read: {error.strerror}") from None
        if len(raw) > MAX_BYTES:
            raise SpecError(f"{path} is larger than 1 MiB")
        return parse(raw.decode("utf-8-sig", errors="surrogateescape"), path)
    return Ignore()


def parse(text: str, path: str = NAME) -> Ignore:
    """Return the patterns of a text. Raises SpecError with FILE:LINE."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or not (pattern := line.strip()):
            continue
        keeps = pattern.startswith("!")
        pattern = posixpath.normpath(pattern.removeprefix("!").strip()).lstrip("/")
        if pattern in (".", ""):
            continue
        try:
            rules.append(_Rule(re.compile(translate(pattern), re.DOTALL), keeps))
        except (ValueError, re.error):
            raise SpecError(f"{path}:{number}: {line.strip()} is not a valid pattern") from None
    return Ignore(tuple(rules))


def translate(pattern: str) -> str:
    """Return the regular expression of a pattern in which * and ? stay within a name. Raises ValueError."""
    result, at = "", 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*" and pattern.startswith("*", at):
            at += 1
            if pattern.startswith("/", at):
                at += 1
            part = ".*" if at == len(pattern) else "(?:.*/)?"
            result += "" if result.endswith(part) else part  # twice is the same, but takes the square of the time
        elif letter == "*":
            result += "[^/]*"
        elif letter == "?":
            result += "[^/]"
        elif letter == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise ValueError("a bracket is not closed")
            # Python may give a meaning to these one day, and warns of them
            inside = re.sub(r"(?<!\\)[\[&~|]|(?<=-)-", r"\\\g<0>", pattern[at:end])
            result += f"[{inside}]"
            at = end + 1
        elif letter == "\\":
            if at == len(pattern):
                raise ValueError("nothing follows the last backslash")
            result += re.escape(pattern[at])
            at += 1
        else:
            result += re.escape(letter)
    return result
