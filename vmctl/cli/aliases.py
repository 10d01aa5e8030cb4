"""Other names of commands, for users of docker, incus and virsh."""

from __future__ import annotations

import os

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

# the first word, or the first two -> words that replace them
ALIASES = {
    "build": "image build",
    "export": "image export",
    "history": "image history",
    "images": "image ls",
    "import": "image import",
    "info": "doctor",
    "list": "ps",
    "load": "image import",
    "login": "image login",
    "logout": "image logout",
    "ls": "ps",
    "pull": "image pull",
    "push": "image push",
    "rmi": "image rm",
    "save": "image export",
    "tag": "image tag",
    "version": "--version",
    "container ls": "ps",
    "container list": "ps",
    "container prune": "prune",
    "image delete": "image rm",
    "image list": "image ls",
    "image load": "image import",
    "image remove": "image rm",
    "image save": "image export",
    "network delete": "network rm",
    "network list": "network ls",
    "network remove": "network rm",
    "network show": "network inspect",
    "snapshot create": "snapshot take",
    "snapshot list": "snapshot ls",
    "system df": "df",
    "system events": "events",
    "system info": "doctor",
    "system prune": "prune",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}

# verbs that take a stack, or a service of it
COMPOSE = frozenset(
    "up down ps logs stop start restart kill scale exec cp port top pause unpause attach stats wait rm commit".split()
)
_VARIABLES = {
    "-f": "COMPOSE_FILE",
    "--file": "COMPOSE_FILE",
    "-p": "COMPOSE_PROJECT_NAME",
    "--project-name": "COMPOSE_PROJECT_NAME",
    "--profile": "COMPOSE_PROFILES",
}


def resolved(words: list[str], verbs: Container[str]) -> list[str]:
    """Return the words of a command line with the names of this program in place of an alias."""
    if words[0] == "compose":
        return _of_compose(words)
    if words[0] == "info" and words[1:] and not words[1].startswith("-"):  # of an instance, as in incus
        return ["inspect", *words[1:]]
    for count in (2, 1):
        if command := ALIASES.get(" ".join(words[:count])):
            return [*command.split(), *words[count:]]
    if words[0] == "container" and words[1:] and words[1] in verbs:  # as in `docker container run`
        return words[1:]
    return words


def _of_compose(words: list[str]) -> list[str]:
    """Return the words for a verb of Compose: flags before it are variables, or for `up`."""
    flags, rest = _parted(words)
    if not rest or rest[0] not in COMPOSE:
        return words
    if rest[0] == "up":
        left = [word for flag, value in flags if flag not in _VARIABLES for word in (flag, value)]
        return ["up", *left, *rest[1:]]
    if rest[0] == "ps" and all(word.startswith("-") for word in rest[1:]):
        return [*rest, *_file(flags)]
    return rest


def of_flags(words: list[str]) -> dict[str, str]:
    """Return the variables that have the meaning of the flags before a verb of Compose."""
    found: dict[str, list[str]] = {}
    for flag, value in _parted(words)[0]:
        if flag in _VARIABLES:
            found.setdefault(_VARIABLES[flag], []).append(value)
    joined = {"COMPOSE_FILE": os.environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep, "COMPOSE_PROFILES": ","}
    return {name: joined[name].join(texts) if name in joined else texts[-1] for name, texts in found.items()}


def _parted(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the flags before the verb, with their values, and the words from the verb on."""
    flags: list[tuple[str, str]] = []
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        flag, equals, value = rest[0].partition("=")
        flags.append((flag, value if equals else "".join(rest[1:2])))
        rest = rest[1 if equals else 2 :]
    return flags, rest


def _file(flags: list[tuple[str, str]]) -> list[str]:
    """Return the first file of the stack, as a word that can only be a file."""
    from vmctl.stacks import reading

    found = [value for flag, value in flags if _VARIABLES.get(flag) == "COMPOSE_FILE"] or reading.usual_files(".")
    return [os.path.join(".", found[0])] if found else []
