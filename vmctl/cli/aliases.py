"""Other names of commands, for users of docker, incus and virsh."""

from __future__ import annotations

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
    "network list": "network ls",
    "network remove": "network rm",
    "system df": "df",
    "system events": "events",
    "system info": "doctor",
    "system prune": "prune",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}

COMPOSE = ("up", "down", "ps", "logs", "stop", "start", "restart", "kill", "scale")  # verbs that take a stack


def resolved(words: list[str], verbs: Container[str]) -> list[str]:
    """Return the words of a command line with the names of this program in place of an alias."""
    if words[0] == "compose":
        return _of_compose(words)
    for count in (2, 1):
        if command := ALIASES.get(" ".join(words[:count])):
            return [*command.split(), *words[count:]]
    if words[0] == "container" and words[1:] and words[1] in verbs:  # as in `docker container run`
        return words[1:]
    return words


def _of_compose(words: list[str]) -> list[str]:
    """Return the words for a verb of Compose, after which its global flags come; a stack is a file here, not a flag."""
    before: list[str] = []
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        count = 1 if "=" in rest[0] else 2
        before, rest = [*before, *rest[:count]], rest[count:]
    if not rest or rest[0] not in COMPOSE:
        return words
    if rest[0] == "up":
        return ["up", *before, *rest[1:]]
    files = [before[number + 1] for number, word in enumerate(before[:-1]) if word in ("-f", "--file")]
    return [*rest, *files]
