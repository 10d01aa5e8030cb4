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


def resolved(words: list[str], verbs: Container[str]) -> list[str]:
    """Return the words of a command line with the names of this program in place of an alias."""
    for count in (2, 1):
        if command := ALIASES.get(" ".join(words[:count])):
            return [*command.split(), *words[count:]]
    if words[0] == "container" and words[1:] and words[1] in verbs:  # as in `docker container run`
        return words[1:]
    return words
