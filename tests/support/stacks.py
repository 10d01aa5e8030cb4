"""Stacks from texts, for tests that start nothing."""

import os

from vmctl.stacks import loading
from vmctl.stacks.stack import Source


def loaded(folder, text, *more, environ=None, name="", profiles=(), env_files=()):
    """Return the stack of a text; `more` are texts of files that override it."""
    paths = []
    for number, one in enumerate((text, *more)):
        paths.append(os.path.join(folder, f"shop{number or ''}.yaml"))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(one)
    return loading.load(Source(tuple(paths), tuple(env_files), tuple(profiles), name, environ or {}))


def service(folder, text, *, top="", **options):
    """Return the service `web` whose keys are in a text, each line without its indentation."""
    body = "".join(f"    {line}\n" for line in text.strip("\n").splitlines())
    return loaded(folder, f"services:\n  web:\n{body}{top}", **options).services["web"]
