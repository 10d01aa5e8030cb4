"""What can come next in a command line: the candidates of completion, from the declarations that --help shows."""

from __future__ import annotations

import argparse
from importlib import import_module

from vmctl import backends
from vmctl.cli import VERBS, aliases, bench, commands, parser, resolved
from vmctl.cli.output import FORMS
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FILES = "/"  # means: also files, which the shell lists
_OF_HOST = ("SPEC", "FILE", "FOLDER", "DIR", "PATH", "RECIPE", "DOCKERFILE", "RESULT", "A.json", "B.json")
_NEW = (("volume", "create"), ("network", "create"))  # their NAME does not exist so far
_GLOBAL = ("--debug", "--trace", "--help", "--version")


def candidates(words: Sequence[str]) -> list[str]:
    """Return what the last of the words after `vmctl` can become, and FILES if it can be a file."""
    *before, word = words or [""]
    while before[:1] in (["--debug"], ["--trace"]):
        before = before[1 if before[0] == "--debug" else 2 :]
    flag, equals, value = word.partition("=")
    if equals and flag.startswith("--"):
        return [one if one == FILES else f"{flag}={one}" for one in candidates([*before, flag, value])]
    found = _of_verb(before, word) if before else _first(word)
    able = [one for one in found if one == FILES or one.startswith(word)]
    if word.endswith(":"):  # an instance of `cp`; its files are not listed
        able = []
    return list(dict.fromkeys(able))


def _first(word: str) -> Iterable[str]:
    if word.startswith("-"):
        return _GLOBAL
    of_docker = [name for name, ours in aliases.ALIASES.items() if ours.startswith("image ") and " " not in name]
    return [*VERBS, *of_docker, "compose"]


def _of_verb(before: Sequence[str], word: str) -> Iterable[str]:
    names = [name.partition(" ")[2] for name in aliases.ALIASES if name.startswith(f"{before[0]} ")]
    if before in (["container"], ["compose"]):
        return [*names, *(sorted(aliases.COMPOSE) if before == ["compose"] else VERBS)]
    verb, *rest = resolved(list(before))
    if verb not in VERBS:
        return names
    module = import_module(f"vmctl.cli.{verb}")
    if verb == "bench" and not rest:
        own = [FILES, "--self-test", "--peers", "--images"] if word.startswith("-") else [FILES, *bench.ACTIONS]
        return [*own, *_next(verb, module.arguments, ["run"], word)]
    if verb == "snapshot" and not rest:  # an instance, without the action `take`
        return [*module.ACTIONS, *_next(verb, module.arguments, ["take"], word)]
    return _next(verb, module.arguments, getattr(module, "expand", list)(rest), word)


def _next(verb: str, declare: Callable[[argparse.ArgumentParser], None], rest: Sequence[str], word: str) -> list[str]:
    """Return what can follow the words after a verb."""
    one: argparse.ArgumentParser = parser.Parser(prog=f"vmctl {verb}", words=["--help"])
    declare(one)
    path, place, waiting = [verb], 0, None
    for given in rest:
        if waiting:
            waiting = None
        elif given == "--":
            return []
        elif given.startswith("-"):
            waiting = _flag(one, given)
        elif inner := _actions(one).get(given):
            one, place = inner, 0
            path.append(given)
            if isinstance(one, argparse.ArgumentParser) and hasattr(one, "declare"):
                one.declare()
        else:
            place += 1
    if waiting:
        return _of_flag(waiting)
    if word.startswith("-"):
        return [name for action in commands.flags(one) for name in action.option_strings if name.startswith("--")]
    return [*_actions(one), *_of_place(path, commands.positionals(one), place)]


def _flag(one: argparse.ArgumentParser, given: str) -> argparse.Action | None:
    """Return the flag whose value is the next word, if any."""
    action = one._option_string_actions.get(given)
    return action if action and action.nargs is None else None


def _actions(one: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in commands.positionals(one):
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _of_flag(flag: argparse.Action) -> list[str]:
    """Return the values of a flag."""
    if flag.choices:
        return list(map(str, flag.choices))
    lists: dict[str, Callable[[], list[str]]] = {
        "--mode": lambda: sorted(backends.modes()),
        "--modes": lambda: sorted(backends.modes()),
        "--network": lambda: [*_networks(), "none", "host"],
        "--volume": lambda: [*_volumes(), FILES],
        "--restart": lambda: ["no", "always", "on-failure", "unless-stopped"],
        "--format": lambda: list(FORMS),
        "--tag": _images,
        "--file": lambda: [FILES],
        "--workdir": list,
    }
    for name in flag.option_strings:
        if name in lists:
            return lists[name]()
    return [FILES] if flag.metavar in _OF_HOST else []


def _of_place(path: Sequence[str], positionals: Sequence[argparse.Action], place: int) -> list[str]:
    """Return the values of an argument that is not a flag."""
    if not positionals:
        return []
    last = positionals[-1]
    if place >= len(positionals) and last.nargs not in ("*", "+"):
        return []
    action = positionals[min(place, len(positionals) - 1)]
    if isinstance(action, argparse._SubParsersAction) or action.nargs == argparse.REMAINDER or tuple(path) in _NEW:
        return []
    if action.choices:
        return list(map(str, action.choices))
    metavar = str(action.metavar or action.dest)
    if metavar.startswith("[NAME:]"):
        return [*(f"{name}:" for name in _instances()), FILES]
    kinds = metavar.partition(" ")[0].split("|")
    found = [name for kind in kinds for name in _names(kind, path)]
    if "or stack" in (action.help or "") and "STACK" not in kinds:
        found += _stacks()
    return [*found, *[FILES][: any(kind in _OF_HOST for kind in kinds)]]


def _names(kind: str, path: Sequence[str]) -> list[str]:
    if kind == "IMAGE":
        return _images()
    if kind == "STACK":
        return _stacks()
    if kind == "NETWORK":
        return _networks()
    if kind == "SNAPSHOT":
        return [] if path[-1] == "take" else _snapshots()
    if kind != "NAME":
        return []
    if path[:2] == ["image", "kernel"]:
        from images.kernels import inventory

        return [kept.kernel.name for kept in inventory.ls()]
    if path[0] == "network" and path[1:2] in (["connect"], ["disconnect"]):
        return _instances()
    lists = {"image": _images, "volume": _volumes, "network": _networks, "lab": _labs}
    return lists.get(path[0], _instances)()


def _instances() -> list[str]:
    from vmctl.instances import instance

    return instance.names()


def _images() -> list[str]:
    from images.store import store

    return [image.name for image in store.ls() if image.name]


def _volumes() -> list[str]:
    from vmctl.volumes import store

    return store.names()


def _snapshots() -> list[str]:
    from vmctl.snapshots import record

    return record.names()


def _labs() -> list[str]:
    from bench import labs

    return [lab.name for lab in labs.labs()]


def _networks() -> list[str]:
    from vmctl import networks

    return [seen.name for seen in networks.survey()]


def _stacks() -> list[str]:
    from vmctl.stacks import record

    return record.names()
