"""Files of variables in the form of Compose, `.env` and `env_file`, whose values can use variables."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping

from vmctl.spec import envfile
from vmctl.stacks import variables


def load(path: str, values: Mapping[str, str], unset: Callable[[str], None] = lambda _: None) -> dict[str, str]:
    """Return the variables of a file; `values` are those that they can use, and that names without a value take.

    `unset` is called for each variable in a value that is not known. Raises SpecError with file and line.
    """
    return parse(envfile.content(path), path, values, unset)


def parse(
    text: str, path: str, values: Mapping[str, str], unset: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """Return the variables of a text. Raises SpecError."""
    found: dict[str, str] = {}
    known = ChainMap(dict(values), found)  # the first one wins: the environment
    for _, name, value in envfile.quoted(text, path, lambda value: variables.expand(value, known, unset)):
        if value is not None:
            found[name] = value
        elif name in values:
            found[name] = values[name]
    return found
