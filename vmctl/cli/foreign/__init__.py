"""What users of docker, incus, multipass, lima and virsh type, and what does the same here.

Only an error about an unknown verb, action or flag imports these tables. A text that begins with `not yet: ` describes
what to do instead; every other text names the command. The commands are those of the manuals: docker CLI 28, incus 6,
multipass 1.15, limactl 1.0, virsh(1) 9.
"""

from __future__ import annotations

from difflib import get_close_matches

from vmctl.cli.foreign.flags import FLAGS
from vmctl.cli.foreign.verbs import VERBS
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

# never suggested because their names look similar: they remove or end something
_FINAL = frozenset("rm rmi down prune kill stop reset disconnect".split())


def of_verb(words: Sequence[str], known: Iterable[str]) -> str:
    """Return the hint for words that begin with an unknown verb (or action); `known` are the verbs that exist."""
    if words[0] == "container" and words[1:] and " ".join(words[:2]) not in VERBS:
        words = words[1:]
    for count in (2, 1):
        key = " ".join(words[:count])
        if text := VERBS.get(key) or next((VERBS[name] for name in VERBS if _begins(key, name)), ""):
            return text
    near = get_close_matches(words[0], list(known), 1)
    return f"did you mean `vmctl {near[0]}`?" if near and near[0].split()[-1] not in _FINAL else _list_of(words[0])


def _list_of(command: str) -> str:
    verb, _, action = command.rpartition(" ")
    return f"`vmctl {verb} --help` lists the actions" if verb and action else "`vmctl --help` lists the verbs"


def _begins(key: str, pattern: str) -> bool:
    return pattern.endswith("*") and " " not in key and key.startswith(pattern[:-1])


def of_flags(command: str, words: Iterable[str], known: Container[str], message: str) -> str:
    """Return the hint for the first word that is a flag of another program, "" if no word is one.

    `known` are the flags that exist; one of them counts only if it is the flag that `message` is about.
    """
    table = FLAGS.get(command, {})
    for word in words:
        if word == "--":
            break
        flag = word.partition("=")[0]
        if flag in table and (flag not in known or message.startswith(f"argument {flag}:")):
            return f"{flag}: {table[flag]}"
    return ""
