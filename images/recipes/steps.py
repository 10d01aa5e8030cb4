"""The parts of a build, from any kind of build file: stages, each a base and instructions on top of it.

An instruction contains texts as they were written. Variables are filled in when the step is taken, since their values
(among them the environment of the base image) are known only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SCRATCH = "scratch"

Command = str | tuple[str, ...]  # a line for the shell, or a program and its arguments


class RunMount(NamedTuple):
    """What is mounted while a command runs, and is not part of the layer."""

    kind: str  # bind | cache | tmpfs | secret
    target: str
    source: str = ""  # bind: a path in the context or in `origin`; empty: all of it
    origin: str = ""  # bind: a stage or an image; empty: the context
    id: str = ""  # of a cache (empty: its target) or secret
    read_only: bool = False
    sharing: str = "shared"  # cache: shared | private | locked
    uid: int = 0
    gid: int = 0
    mode: int = 0o755
    size_bytes: int | None = None  # tmpfs
    required: bool = False  # secret: without it the build fails


class Run(NamedTuple):
    """Run a command on the image so far; what it changes in the file system becomes a layer."""

    command: Command
    network: str = ""  # bridge | none | host; empty: the network of the whole build
    mounts: tuple[RunMount, ...] = ()


class Inline(NamedTuple):
    """A file whose content is in the build file itself."""

    name: str
    content: str
    expand: bool = True


class Copy(NamedTuple):
    """Copy files from the context, a stage or an image."""

    sources: tuple[str, ...]
    target: str
    origin: str = ""  # a stage or an image; empty: the context
    owner: str = ""  # user[:group], names or numbers of the image's; empty: root, and the owners of `origin`
    mode: str = ""  # octal, or as of chmod(1): `u=rwX,go=rX`; empty: as the files have it
    extract: bool = False  # an archive is unpacked instead, and a source can be a URL
    inline: tuple[Inline, ...] = ()
    checksum: str = ""  # of the only source, a URL: `sha256:...`
    exclude: tuple[str, ...] = ()  # patterns of .dockerignore, relative to each source
    parents: bool = False  # the folders above a source are kept
    unpack: bool | None = None  # of ADD; None: local archives, but none from a URL


class Env(NamedTuple):
    """Set variables, for the steps that follow and for the workload."""

    pairs: tuple[tuple[str, str], ...]


class Arg(NamedTuple):
    """Declare variables of the build, which `--build-arg` sets; they are not in the image's environment."""

    defaults: tuple[tuple[str, str | None], ...]


class Workdir(NamedTuple):
    """Set the folder for what follows and for the workload; it is created if it is missing."""

    path: str


class User(NamedTuple):
    """Set the user for what follows and for the workload."""

    user: str


class Shell(NamedTuple):
    """Set the program that gets commands that are one text."""

    argv: tuple[str, ...]


class Entrypoint(NamedTuple):
    """Set the entrypoint, which always runs."""

    command: Command


class Cmd(NamedTuple):
    """Set the command, or the arguments of the entrypoint; a workload's command overrides it."""

    command: Command


class Expose(NamedTuple):
    """Declare the ports that the workload listens on."""

    ports: tuple[str, ...]


class Volume(NamedTuple):
    """Declare the folders for data that is not part of the image."""

    paths: tuple[str, ...]


class Label(NamedTuple):
    """Attach texts to the image."""

    pairs: tuple[tuple[str, str], ...]


class StopSignal(NamedTuple):
    """Set the signal that stops the workload."""

    signal: str


class Stored(NamedTuple):
    """A setting that vmctl keeps in the configuration for other tools and ignores itself."""

    key: str
    value: object


Action = (
    Run | Copy | Env | Arg | Workdir | User | Shell | Entrypoint | Cmd | Expose | Volume | Label | StopSignal | Stored
)


class Instruction(NamedTuple):
    """One step of a stage."""

    action: Action
    text: str  # as written, for people
    where: str  # FILE:LINE, or FILE and the key


class Packages(NamedTuple):
    """A base made of Debian packages."""

    suite: str
    include: tuple[str, ...] = ()
    variant: str = "essential"
    components: tuple[str, ...] = ("main",)
    mirrors: tuple[str, ...] = ()  # lines of sources.list, or URLs; empty: this host's sources of the suite
    documentation: bool = False  # manuals, translations and /usr/share/doc, except the licences
    exclude: tuple[str, ...] = ()  # patterns of paths that are not unpacked: see dpkg(1), path-exclude
    files: tuple[Inline, ...] = ()  # created before the packages' scripts run; names are absolute paths


class Stage(NamedTuple):
    """A base and what is done to it."""

    name: str  # empty: without a name
    base: str | Packages  # an image, an earlier stage, `scratch`; variables not yet filled in
    steps: tuple[Instruction, ...]
    where: str
    text: str  # of the base, for people


class BuildFile(NamedTuple):
    """A build file, read."""

    name: str  # of the image, if the file gives one
    path: str
    stages: tuple[Stage, ...]
    arguments: Mapping[str, str | None] = {}  # declared before the first stage: name -> default
    warnings: tuple[str, ...] = ()
    escape: str = "\\"  # the escape character, in texts with variables
    quotes: bool = True  # in such texts they group words and are removed, as in a shell
