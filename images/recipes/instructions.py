"""The instructions of a Dockerfile: words, flags and JSON forms, parsed into actions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from images.recipes import copyflags, runmounts
from images.recipes.flagwords import flags, json_words
from images.recipes.lines import Heredoc, Line
from images.recipes.lines import words as split
from images.recipes.steps import (
    Action,
    Arg,
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    Label,
    Run,
    Shell,
    StopSignal,
    Stored,
    User,
    Volume,
    Workdir,
)
from vmctl.spec import signals, units

# keys of the configuration that are stored for other tools: the warning for the user
UNHEEDED = {
    "Maintainer": "is stored as the author; a LABEL org.opencontainers.image.authors is what others read",
}

MAY_BE_BARE = ("CMD", "ENTRYPOINT")  # nothing has to follow these

_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


def command(text: str) -> Command:
    """Return a program and its arguments if the text is a JSON list of texts, else the line for the shell."""
    return words if (words := json_words(text)) is not None else text


def _run(line: Line, _: str) -> Action:
    found, rest = flags(line.rest, ("network", "mount"), "mount")
    network = {"default": "", "none": "none", "host": "host"}.get(found.get("network", "default"))
    if network is None:
        raise ValueError(f"--network: expected default, none or host, got {found['network']}")
    if not rest:
        raise ValueError("no command")
    mounts = tuple(map(runmounts.read, found.get("mount", "").split()))
    return Run(_with_heredocs(rest, line.heredocs) if line.heredocs else command(rest), network, mounts)


def _with_heredocs(rest: str, heredocs: tuple[Heredoc, ...]) -> str:
    """Return the line for the shell, which reads here-documents itself; one without a command is the script."""
    first, *_ = heredocs
    if len(heredocs) == 1 and len(rest.split()) == 1:
        if not first.content.startswith("#!"):
            return first.content
        interpreter = first.content[2:].partition("\n")[0].strip()
        rest = f"cat >/dev/shm/{first.name} <<'{first.name}' && exec {interpreter} /dev/shm/{first.name}"
    return "\n".join((rest, *(f"{part.content}{part.name}" for part in heredocs))) + "\n"


def _copy(line: Line, _: str) -> Action:
    return copyflags.read(line)


def _add(line: Line, _: str) -> Action:
    return copyflags.read(line, extract=True)


def pairs(text: str, escape: str) -> tuple[tuple[str, str], ...]:
    """Return NAME=VALUE pairs, quotes and variables in them; or the one pair of the old form `NAME the rest`."""
    words = split(text, escape)
    if "=" not in words[0]:
        first, *rest = text.split(maxsplit=1)
        if not rest:
            raise ValueError(f"expected NAME=VALUE, got {first}")
        return ((first, rest[0]),)
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"expected NAME=VALUE, got {word}")
        found.append((name, value))
    return tuple(found)


def _env(line: Line, escape: str) -> Action:
    return Env(pairs(line.rest, escape))


def _label(line: Line, escape: str) -> Action:
    return Label(pairs(line.rest, escape))


def _maintainer(line: Line, _: str) -> Action:
    return Stored("Maintainer", line.rest)


def _one(text: str, what: str) -> str:
    words = split(text)
    if len(words) != 1:
        raise ValueError(f"expected {what}, got {text}")
    return text


def _arg(line: Line, escape: str) -> Action:
    found: list[tuple[str, str | None]] = []
    for word in split(line.rest, escape):
        name, equals, value = word.partition("=")
        if not re.fullmatch(_VARIABLE, name):
            raise ValueError(f"{name!r} cannot be the name of a variable")
        found.append((name, value if equals else None))
    return Arg(tuple(found))


def _workdir(line: Line, _: str) -> Action:
    return Workdir(line.rest)


def _user(line: Line, _: str) -> Action:
    return User(_one(line.rest, "USER or USER:GROUP"))


def _shell(line: Line, _: str) -> Action:
    argv = json_words(line.rest)
    if not argv:
        raise ValueError('expected a list such as ["/bin/bash", "-c"]')
    return Shell(argv)


def _entrypoint(line: Line, _: str) -> Action:
    return Entrypoint(command(line.rest) if line.rest else ())


def _cmd(line: Line, _: str) -> Action:
    return Cmd(command(line.rest) if line.rest else ())


def _expose(line: Line, _: str) -> Action:
    return Expose(tuple(line.rest.split()))


def _volume(line: Line, _: str) -> Action:
    paths = json_words(line.rest) or tuple(line.rest.split())
    if not all(path.strip() for path in paths):
        raise ValueError("a path is empty")
    return Volume(paths)


def _stop_signal(line: Line, _: str) -> Action:
    text = _one(line.rest, "one signal")
    if "$" not in text:
        check_signal(text)
    return StopSignal(text)


def check_signal(text: str) -> None:
    """Raise ValueError if there is no such signal."""
    try:
        signals.number(text)
    except ValueError as error:
        raise ValueError(f"expected {error}") from None


def _onbuild(line: Line, _: str) -> Action:
    word = line.rest.split()[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise ValueError(f"{word} cannot be in ONBUILD")
    return Stored("OnBuild", line.rest)


def _healthcheck(line: Line, _: str) -> Action:
    known = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod", "retries": "Retries"}
    found, rest = flags(line.rest, (*known, "start-interval"))
    word, *command_text = rest.split(maxsplit=1)
    if word.upper() == "NONE":
        return Stored("Healthcheck", {"Test": ["NONE"]})
    if word.upper() != "CMD" or not command_text:
        raise ValueError("expected CMD and a command, or NONE")
    test = command(command_text[0])
    check: dict[str, object] = {"Test": ["CMD-SHELL", test] if isinstance(test, str) else ["CMD", *test]}
    for flag, value in found.items():
        key = known.get(flag, "StartInterval")
        check[key] = _retries(value) if flag == "retries" else _nanoseconds(flag, value)
    return Stored("Healthcheck", check)


def _retries(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError(f"--retries: expected a whole number, not {value!r}")
    return int(value)


def _nanoseconds(flag: str, value: str) -> int:
    try:
        return int(units.parse_duration(value) * 10**9)
    except ValueError as error:
        raise ValueError(f"--{flag}: expected {error}") from None


def absolute(path: str, workdir: str) -> str:
    """Return a path of an image that may be relative to its working directory; a final slash is kept."""
    joined = posixpath.join(workdir or "/", path)
    slash = "/" if joined.endswith("/") or path in (".", "..") or path.endswith("/.") else ""
    return posixpath.normpath("/" + joined.lstrip("/")).rstrip("/") + (slash or "") or "/"


READERS: dict[str, Callable[[Line, str], Action]] = {
    "RUN": _run,
    "COPY": _copy,
    "ADD": _add,
    "ENV": _env,
    "ARG": _arg,
    "WORKDIR": _workdir,
    "USER": _user,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "LABEL": _label,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
    "MAINTAINER": _maintainer,
}
