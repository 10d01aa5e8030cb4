"""COPY and ADD: their flags, sources and target.

See docs.docker.com/reference/dockerfile, sections COPY and ADD.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from images.recipes import lines
from images.recipes.flagwords import boolean, flags, json_words
from images.recipes.lines import Line
from images.recipes.modes import Mode
from images.recipes.steps import Copy, Inline

_SHARED = ("chown", "chmod", "link", "exclude")
_OF_COPY = ("from", "parents")
_OF_ADD = ("checksum", "keep-git-dir", "unpack")
_URL = r"https?://"
_NO_GIT = "ADD of a git repository is not supported: use RUN git clone"


def read(line: Line, *, extract: bool = False) -> Copy:
    """Return the action of a COPY, of an ADD with `extract`. Raises ValueError."""
    found, rest = flags(line.rest, (*_SHARED, *(_OF_ADD if extract else _OF_COPY)), "exclude")
    if rest.startswith("['"):
        raise ValueError("a list needs double quotes")
    if "$" in found.get("from", ""):
        raise ValueError("--from has no variables: give the image a name, FROM IMAGE AS NAME, and use --from=NAME")
    words = json_words(rest) or tuple(rest.split())
    if len(words) < 2:
        raise ValueError("expected at least one source and a target")
    named = [word for word in words[:-1] if line.heredocs and lines.HEREDOC.match(word)]
    if len(named) != len(line.heredocs):  # quotes around several words, or no source
        raise ValueError("the name of a here-document must be one word, and a source")
    sources = [word for word in words[:-1] if word not in named]
    if "keep-git-dir" in found:
        raise ValueError(f"--keep-git-dir: {_NO_GIT}")
    boolean(found, "link")
    checksum = found.get("checksum", "")
    if extract:
        check_sources(sources, checksum)
    mode = found.get("chmod", "")
    if mode and "$" not in mode:
        check_mode(mode)
    return Copy(
        tuple(sources),
        words[-1],
        found.get("from", ""),
        found.get("chown", ""),
        mode,
        extract,
        tuple(Inline(*part) for part in line.heredocs),
        checksum,
        tuple(found.get("exclude", "").split()),
        boolean(found, "parents"),
        boolean(found, "unpack") if "unpack" in found else None,
    )


def check_mode(text: str) -> None:
    """Raise ValueError if a text cannot be a mode."""
    try:
        Mode(text)
    except ValueError as error:
        raise ValueError(f"--chmod: {error}") from None


def check_sources(sources: Sequence[str], checksum: str) -> None:
    """Raise ValueError if a source of ADD cannot be taken, or has no content with a checksum."""
    for source in sources:
        if re.match(r"git://|ssh://|git@", source) or (is_url(source) and re.search(r"\.git(#|$)", source)):
            raise ValueError(_NO_GIT)
        if re.match(r"[a-z]+://", source) and not is_url(source):
            raise ValueError(f"ADD takes files by http and https, not {source[:80]}")
    if checksum and not re.fullmatch(r"sha256:[0-9a-f]{64}|.*\$.*", checksum):
        raise ValueError(f"--checksum: expected sha256: and 64 hexadecimal digits, got {checksum[:80]}")
    if checksum and (len(sources) != 1 or not (is_url(sources[0]) or "$" in sources[0])):
        raise ValueError("--checksum is for one URL")


def is_url(source: str) -> bool:
    """Return whether a source of ADD is downloaded."""
    return bool(re.match(_URL, source))
