"""A workload from flags: in the form of a workload file, converted to the same types, checked by the same rules.

A flag is a text where a file has a number or a list item. msgspec, which checks files, takes longer to import than a
container takes to start, so the declarations of `workload.py` are read here directly.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from vmctl.errors import SpecError, VmctlError
from vmctl.light import re
from vmctl.named import TYPE_CHECKING
from vmctl.spec import rules
from vmctl.spec.scalars import PARSERS, key_of
from vmctl.spec.workload import SECTIONS, NetworkOptions, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    Called = Callable[[str], str]


def workload(document: Mapping[str, Any], flags: Mapping[str, str]) -> Workload:
    """Return the workload of a document whose values are texts; a value of None was not given.

    `flags` has the flag of each key that has one, `{"resources.memory": "--memory"}`. Raises SpecError, which names it.
    """

    def called(path: str) -> str:
        return flags.get(re.sub(r"\[\d+\]", "", path)) or rules.key(path)

    work: Workload = _record(Workload, document, "", called)
    rules.check(work, called)
    return work


@contextmanager
def named(flags: Mapping[str, str]) -> Iterator[None]:
    """Let errors of a start name flags in place of the keys of a workload file."""
    try:
        yield
    except VmctlError as error:
        from vmctl.spec import flagwords

        flagwords.translate(error, flags)
        raise


def _record(kind: type[Any], document: Mapping[str, Any], path: str, called: Called) -> Any:
    values = {}
    for field, declared in kind.__annotations__.items():
        given = document.get(key_of(field))
        if given is not None:
            values[field] = _value(declared.removesuffix(" | None"), given, f"{path}{key_of(field)}", called)
    return kind(**values)


def _value(declared: str, given: Any, path: str, called: Called) -> Any:
    if declared in SECTIONS:
        return _record(SECTIONS[declared], given, f"{path}.", called)
    if declared.startswith("tuple["):
        inner = declared[6:].partition(",")[0]
        return tuple(_value(inner, part, f"{path}[{i}]", called) for i, part in enumerate(given))
    try:
        return PARSERS[declared](given) if declared in PARSERS else given
    except ValueError as error:
        raise SpecError(f"{called(path)}: expected {error}") from None


def networks(
    names: list[str], aliases: list[str], address: str | None, egress: list[str], *lookups: list[str]
) -> str | NetworkOptions:
    """Return the key `network` from --network, --network-alias, --ip, --egress, and --dns, --dns-search, --dns-option.

    Raises SpecError.
    """
    if (
        len(names) < 2 and not (aliases or address or egress or any(lookups)) and all(map(rules.is_name, names))
    ):  # nearly always
        return "".join(names) or "bridge"
    from vmctl.spec import networking

    return networking.of_flags(names, aliases, address, egress, lookups)


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return labels from NAME=VALUE, or NAME, whose value is empty."""
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def variables(texts: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """Return variables from NAME=VALUE, or NAME, whose value is the caller's; without one it is left out.

    `files` contain one on each line that is neither empty nor a comment; `texts` replace those of the same name.
    """
    found: dict[str, str] = {}
    for path in files:
        from vmctl.spec import envfile

        found.update(envfile.read(path, raw=True))
    for text in texts:
        name, equals, value = text.partition("=")
        if equals or name in os.environ:
            found[name] = value if equals else os.environ[name]
        elif not rules.is_variable(name):
            raise SpecError(f"--env: {name!r} cannot be the name of a variable")
    return found
