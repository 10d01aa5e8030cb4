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
_MAX_INNER = 4  # how many `**` may follow a part of a name, as in a**b: each one doubles the expression
_STAR, _DEEP = "*", "**"  # marks of a pattern among the expressions of its characters


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
    """Return the regular expression of a pattern in which * and ? stay within a name. Raises ValueError.

    The time of a match grows with the product of both lengths, never exponentially: after the first place that a * can
    end at, the others need not be tried, since what follows has a fixed length up to the next * or /. So each part is
    an atomic group, (?>...), in which one repeat at most can give something back. Every * and ** is bounded by these.
    """
    return "|".join(map(_alternative, _alternatives(_tokens(pattern))))


def _tokens(pattern: str) -> list[str]:
    """Return a pattern as *, **, / and the regular expressions of single characters."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*" and pattern.startswith("*", at):
            at += 2 if pattern.startswith("/", at + 1) else 1
            if found[-1:] != [_DEEP]:  # twice is the same
                found.append(_DEEP)
        elif letter == "*":
            if found[-1:] != [_STAR]:
                found.append(_STAR)
        elif letter == "/":
            found.append(letter)
        elif letter == "?":
            found.append("[^/]")
        elif letter == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise ValueError("a bracket is not closed")
            # Python may give a meaning to these one day, and warns of them
            inside = re.sub(r"(?<!\\)[\[&~|]|(?<=-)-", r"\\\g<0>", pattern[at:end])
            found.append(f"(?!/)[{inside}]")
            at = end + 1
        elif letter == "\\":
            if at == len(pattern):
                raise ValueError("nothing follows the last backslash")
            found.append(re.escape(pattern[at]))
            at += 1
        else:
            found.append(re.escape(letter))
    return found


def _alternatives(tokens: list[str]) -> list[list[str]]:
    """Return patterns whose ** begin at the beginning of a name: a**b is ab, or a*/**b. Raises ValueError."""
    inner = [at for at in range(1, len(tokens) - 1) if tokens[at] == _DEEP and tokens[at - 1] != "/"]
    if len(inner) > _MAX_INNER:
        raise ValueError("too many ** behind a part of a name")
    found = [tokens]
    for at in reversed(inner):
        found = [one[:at] + between + one[at + 1 :] for one in found for between in ([], [_STAR, "/", _DEEP])]
    return found


def _alternative(tokens: list[str]) -> str:
    groups = _split(tokens, _DEEP)
    below = len(groups) > 1 and not groups[-1]  # it ends with **
    if below:
        groups.pop()
    result = _names(groups[0], ends=not below)
    for index, group in enumerate(groups[1:], 2):
        names = _names(group, ends=not below) + (r"\Z" if index == len(groups) and not below else "")
        result += f"(?>(?:[^/]*+/)*?{names})"  # the first place that fits: it leaves most to what follows
    return result + (".*" if below else "")


def _names(tokens: list[str], *, ends: bool) -> str:
    """Return the expression of names with / between them; `ends`: the last one has to end where the match does."""
    names = _split(tokens, "/")
    return "/".join(_name(name, ends=ends or at < len(names) - 1) for at, name in enumerate(names))


def _name(tokens: list[str], *, ends: bool) -> str:
    first, *others = ("".join(part) for part in _split(tokens, _STAR))
    for at, part in enumerate(others, 1):
        if at < len(others) or (part and not ends):
            first += f"(?>[^/]*?{part})"
        else:
            first += f"(?>[^/]*{part}(?![^/]))" if part else "[^/]*+"
    return first


def _split(tokens: list[str], mark: str) -> list[list[str]]:
    """Return the parts of a list between the elements that are `mark`."""
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token == mark:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
