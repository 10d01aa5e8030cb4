"""Names on a command line that mean several instances: the name of a stack, or its file."""

from __future__ import annotations

import os

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FILES = (".yaml", ".yml")


def is_file(text: str) -> bool:
    """Return whether a text can only be the path of a file."""
    return text.endswith(FILES) or os.path.sep in text


def of_file(path: str) -> tuple[str, bool]:
    """Return the name in a file, and whether the file is a stack. Raises SpecError."""
    from vmctl.spec import textfile, workloadfile
    from vmctl.stacks import reading, yamltree
    from vmctl.stacks.stack import Source

    raw = textfile.read(path, "workload file")
    if not yamltree.is_stack(raw):
        return workloadfile.load(path, raw=raw).name, False
    source = Source((path,), environ=dict(os.environ))
    return reading.name_of(source, {path: raw}), True


def stack_of(text: str) -> str | None:
    """Return the name of the stack that a text means: its file, or its name if no instance has it; else None."""
    from vmctl.instances import instance

    if is_file(text) and os.path.isfile(text):
        name, several = of_file(text)
        return name if several else None
    if is_file(text) or text in instance.names():
        return None
    from vmctl.stacks import record

    return text if text in record.names() else None


def here() -> str | None:
    """Return the name of the stack of this folder, or of COMPOSE_FILE; None if there is no file. Raises SpecError."""
    from vmctl.stacks import reading
    from vmctl.stacks.stack import Source

    files = reading.usual_files(".")
    return reading.name_of(Source(files, environ=dict(os.environ))) if files else None


def of_folder(*, last_first: bool) -> list[str]:
    """Return the instances of the stack of this folder; none if it has no file with a usual name. Raises SpecError."""
    stack = here()
    return _in_order(stack, last_first=last_first) if stack else []


def of_service(text: str) -> list[str]:
    """Return the instances of a service of the stack of this folder, the first one first; [] for no such service."""
    stack = here()
    if not stack:
        return []
    from vmctl.stacks import record

    found = [one for one, service in record.instances(stack).items() if service == text]
    return sorted(found, key=lambda one: (len(one), one))  # shop-web, shop-web-2, ..., shop-web-10


def _in_order(stack: str, *, last_first: bool) -> list[str]:
    from vmctl.stacks import ending

    names = ending.in_order(stack)
    return names[::-1] if last_first else names


def expanded(texts: Iterable[str], *, last_first: bool = False) -> list[str]:
    """Return names of instances: for the name or the file of a stack those of its instances.

    They come in the order of their dependencies, with `last_first` in the reverse order.

    A name that nothing has stays, so that the verb reports it. Raises SpecError.
    """
    from vmctl.instances import instance

    found: list[str] = []
    for text in texts:
        stack = stack_of(text)
        if stack is not None:
            found += _in_order(stack, last_first=last_first)
        elif is_file(text) and os.path.isfile(text):
            found.append(of_file(text)[0])
        else:
            found += [text] if text in instance.names() else of_service(text) or [text]
    return list(dict.fromkeys(found))
