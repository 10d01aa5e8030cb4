"""Read the files of a stack into one tree: variables, `include`, `extends`, override files, profiles."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vmctl.errors import SpecError
from vmctl.spec import textfile
from vmctl.stacks import dotenv, keys, merging, variables, yamltree
from vmctl.stacks.item import Item, Origin, Place, near
from vmctl.stacks.stack import Source

USUAL = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")  # in this order
OVERRIDES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
)
_MAX_FILES = 100
_MAX_EXTENDED = 20  # services, one over the other: each merge takes the longer, the more there is below
_SECTIONS = ("services", "networks", "volumes", "secrets", "configs")
STDIN = "-"


class Document(NamedTuple):
    """One tree for all files; `values` are the variables, `warnings` are for the user."""

    name: str
    tree: Place
    values: Mapping[str, str]
    profiles: tuple[str, ...]
    warnings: tuple[str, ...]


def usual_files(folder: str) -> tuple[str, ...]:
    """Return the file of a stack in a folder, and its override file; none if there is no file with a usual name.

    The variable COMPOSE_FILE names others, with the separator of COMPOSE_PATH_SEPARATOR, as in Compose.
    """
    if given := os.environ.get("COMPOSE_FILE"):
        return tuple(filter(None, given.split(os.environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep)))
    found = [name for name in USUAL if os.path.isfile(os.path.join(folder, name))]
    more = [name for name in OVERRIDES if os.path.isfile(os.path.join(folder, name))]
    return tuple(os.path.join(folder, name) for name in (*found[:1], *more[:1])) if found else ()


def read(source: Source, contents: Mapping[str, bytes] | None = None) -> Document:
    """Return the tree of the files of a stack. Raises SpecError.

    `contents` has what was read already, by file: the first file can be a pipe.
    """
    return _Reader(source, contents or {}).document()


def name_of(source: Source, contents: Mapping[str, bytes] | None = None) -> str:
    """Return the name of a stack; its variables need no values, so that a stack can always be removed."""
    reader = _Reader(source, contents or {})
    top = [reader.parsed(path, reader.origin(path)) for path in source.files]
    return reader.name(top)


class _Reader:
    """Reads the files of one stack."""

    def __init__(self, source: Source, contents: Mapping[str, bytes]) -> None:
        self.source, self.contents = source, contents
        self.warnings: dict[str, None] = {}  # in order, each once
        first = source.files[0]
        self.folder = os.getcwd() if first == STDIN else os.path.dirname(os.path.abspath(first))
        self.values = self._variables()
        self.files = 0

    def document(self) -> Document:
        trees = [self.parsed(path, self.origin(path)) for path in self.source.files]
        name = self.name(trees)
        self.values = {**self.values, "COMPOSE_PROJECT_NAME": name}
        tree = self._joined(trees, self.values, ())
        return Document(name, Place(tree), self.values, self._profiles(), tuple(self.warnings))

    def origin(self, path: str) -> Origin:
        return Origin("standard input" if path == STDIN else path, self.folder)

    def warn(self, text: str) -> None:
        self.warnings[text] = None

    def parsed(self, path: str, origin: Origin) -> Item:
        self.files += 1
        if self.files > _MAX_FILES:
            raise SpecError(f"{path}: a stack of more than {_MAX_FILES} files")
        raw = self.contents.get(path)
        if raw is None:
            raw = textfile.read("/dev/stdin" if path == STDIN else path, "stack file")
        return yamltree.parse(raw, origin)

    def name(self, trees: Sequence[Item]) -> str:
        """Return the name of the stack: of the command line, the environment, the last file that has it, or a file."""
        given = self.source.name or self.source.environ.get("COMPOSE_PROJECT_NAME", "")
        for tree in reversed(trees):
            if given:
                break
            if (place := Place(tree).get("name")) is not None:
                item = variables.filled(place.item, self.values, self._unset)
                given = Place(item, ("name",)).text()
        base = os.path.basename(self.source.files[0])
        if not given:
            usual = base in (*USUAL, STDIN)
            given = os.path.basename(self.folder) if usual else base.rpartition(".")[0] or base
            given = re.sub(r"[^a-z0-9_-]", "", given.lower()).lstrip("_-")
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", given):
            raise SpecError(
                f"the name {given!r} cannot be used for a stack",
                hint="`name:` or --name: up to 40 small letters, digits, '-' and '_', beginning with a letter or digit",
            )
        return given

    def _variables(self) -> dict[str, str]:
        environ = dict(self.source.environ)
        found: dict[str, str] = {}
        usual = os.path.join(self.folder, ".env")
        for path in self.source.env_files or ([usual] if os.path.isfile(usual) else []):
            found.update(dotenv.load(path, {**found, **environ}))
        return {**found, **environ}

    def _profiles(self) -> tuple[str, ...]:
        named = self.values.get("COMPOSE_PROFILES", "").split(",")
        return tuple(dict.fromkeys(filter(None, (*self.source.profiles, *map(str.strip, named)))))

    def _unset(self, place: Place, name: str) -> None:
        self.warn(place.warning(f"the variable {name} is not set: it becomes an empty text"))

    def _joined(self, trees: Sequence[Item], values: Mapping[str, str], chain: tuple[str, ...]) -> Item:
        """Return the tree of files of which each one overrides those before; with what they include."""
        whole: Item | None = None
        for tree in trees:
            kept = tree.like({key: part for key, part in tree.value.items() if not key.startswith("x-")})
            one = variables.filled(kept, values, self._unset)
            keys.check(Place(one), keys.TOP, self.warn)
            one = self._extended(one, values)
            whole = merging.cleared(one) if whole is None else merging.merged(whole, one)
        assert whole is not None
        return self._with_included(whole, values, chain)

    def _with_included(self, tree: Item, values: Mapping[str, str], chain: tuple[str, ...]) -> Item:
        place = Place(tree).get("include")
        for one in place.one_or_each() if place is not None else []:
            tree = self._added(tree, self._included(one, values, chain), one)
        return tree

    def _included(self, place: Place, values: Mapping[str, str], chain: tuple[str, ...]) -> Item:
        """Return the tree of an entry of `include`, with its own folder and its own `.env`."""
        files, folder, env_files = [place.path_of_host()] if place.is_text() else [], "", []
        if not place.is_text():
            found = keys.check(place, keys.INCLUDE, self.warn)
            files = [one.path_of_host() for one in found["path"].one_or_each()] if "path" in found else []
            folder = found["project_directory"].path_of_host() if "project_directory" in found else ""
            env_files = [one.path_of_host() for one in found["env_file"].one_or_each()] if "env_file" in found else []
        if not files:
            raise place.error("it includes no file", "path: FILE")
        if files[0] in chain:
            raise place.error(f"{files[0]} includes itself")
        folder = folder or os.path.dirname(files[0])
        usual = os.path.join(folder, ".env")
        for path in env_files or ([usual] if os.path.isfile(usual) else []):
            values = {**dotenv.load(path, values), **values}
        trees = [self.parsed(path, Origin(os.path.relpath(path), folder)) for path in files]
        return self._joined(trees, values, (*chain, files[0]))

    def _added(self, tree: Item, more: Item, place: Place) -> Item:
        """Return the tree with the sections of another one, which has no name in common with it."""
        found = dict(tree.value)
        for section in _SECTIONS:
            here, there = Place(tree, ()).get(section), Place(more, ()).get(section)
            if there is None:
                continue
            names = here.entries() if here else {}
            for name, part in there.entries().items():
                if name in names and names[name].item.plain() != part.item.plain():
                    raise place.error(f"{section}: {name} is here, and also in {part.item.origin.file}")
            joined = {**there.value, **(here.value if here else {})}
            found[section] = (here or there).item.like(joined)
        return tree.like(found)

    def _extended(self, tree: Item, values: Mapping[str, str]) -> Item:
        """Return the tree with `extends` of each service carried out."""
        services = Place(tree).get("services")
        if services is None:
            return tree
        done: dict[str, Item] = {}
        for name, place in services.entries().items():
            done[name] = self._service(place, services, values, ())
        return tree.like({**tree.value, "services": services.item.like(done)})

    def _service(
        self, place: Place, services: Place, values: Mapping[str, str], chain: tuple[tuple[str, str], ...]
    ) -> Item:
        """Return a service merged over the one that it extends, which may be in another file."""
        extends = place.get("extends") if place.is_map() else None
        if extends is None:
            return place.item
        here = (place.item.origin.file, place.key)
        if here in chain:
            raise extends.error(f"the service extends itself, through {' and '.join(name for _, name in chain)}")
        if len(chain) > _MAX_EXTENDED:
            raise extends.error(f"more than {_MAX_EXTENDED} services extend one another")
        wanted, others = self._base(extends, services, values)
        base = others.entries().get(wanted)
        if base is None:
            raise extends.error(
                f"there is no service {wanted} in {others.item.origin.file}", near(wanted, others.entries())
            )
        whole = self._service(base, others, values, (*chain, here))
        own = place.item.like({key: part for key, part in place.value.items() if key != "extends"})
        return merging.merged(merging.cleared(whole), own, place.path)

    def _base(self, extends: Place, services: Place, values: Mapping[str, str]) -> tuple[str, Place]:
        """Return the name of the service that is extended, and the services among which it is."""
        if extends.is_text():
            return extends.text(), services
        found = keys.check(extends, keys.EXTENDS, self.warn)
        if "service" not in found:
            raise extends.error("the key service is missing")
        if "file" not in found:
            return found["service"].text(), services
        path = found["file"].path_of_host()
        tree = self.parsed(path, Origin(os.path.relpath(path), os.path.dirname(path)))
        others = Place(tree).get("services")
        if others is None:
            raise found["file"].error(f"{path} has no services")
        return found["service"].text(), Place(variables.filled(others.item, values, self._unset), ("services",))
