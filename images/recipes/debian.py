"""A base made of Debian packages: mmdebstrap(1) installs them, its tar becomes the layer while it is written.

The same packages give the same digest. For that, what is only of this build goes (lists, logs, caches, ids), and what
came about during the build counts as changed when the newest file of the packages was: the epoch.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple, cast

from images.layer import layers
from images.layer.lookup import Node
from images.layer.readers import from_iterator
from images.layer.tree import Attributes
from images.recipes import tarstream
from images.recipes.steps import Packages
from images.recipes.tarstream import Entry
from images.store.image import Layer
from images.store.staging import Stage
from vmctl.errors import UnavailableError, VmctlError
from vmctl.programs import CommandError, run, which
from vmctl.spec.units import format_size
from vmctl.stream import Output, stream

PROGRAM = "mmdebstrap"
VERSION = 1  # of what is done to the tree; part of the cache's key
_NANO = 10**9
_DAY_S = 86400
_SMALL_BYTES = 1 << 20  # of a file that is rewritten

_DPKG_OPTIONS = ("force-unsafe-io",)  # without fsync: a crash costs the whole layer, not a part of it
_SLIM = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/lintian/*",
)
# of the build, of the host, of one machine, or made anew by who needs it
_LEFT_OUT = re.compile(
    r"(dev|proc|sys|run|tmp|var/tmp|var/cache/apt|var/lib/apt/lists|var/cache/man)/.+"
    r"|etc/(hostname|resolv\.conf|\.pwd\.lock|(passwd|group|shadow|gshadow|subuid|subgid)-|ssh/ssh_host_.*)"
    r"|etc/ssl/(private/ssl-cert-snakeoil\.key|certs/ssl-cert-snakeoil\.pem)"  # a secret is nothing for an image
    r"|var/cache/(ldconfig/aux-cache|debconf/.*-old)"
    r"|var/lib/(dpkg/.*-old|dpkg/lock.*|systemd/random-seed|dbus/machine-id|apt/extended_states\.dpkg-.*)"
    r"|var/log/.*\.(log|xz|gz)|var/log/(apt/.+|lastlog|faillog|btmp|wtmp)"
    r"|\.dockerenv"
)
_NO_TARGETS = ("ssl-cert-snakeoil.pem",)  # of symbolic links
_HOSTS = b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


class Built(NamedTuple):
    """A base."""

    layer: Layer
    epoch_s: int


def available() -> bool:
    """Return whether packages can be made into a base here."""
    return which(PROGRAM) is not None


def build(stage: Stage, base: Packages, epoch_s: int | None, progress: Callable[[str], None]) -> Built:
    """Return a layer with the packages, in the stage; `epoch_s` overrides the packages' own.

    Raises UnavailableError if mmdebstrap, the rights it needs or the packages are not available.
    """
    if not available():
        raise UnavailableError("an image of Debian packages needs mmdebstrap", hint="on Debian: apt install mmdebstrap")
    folder = stage.path("mmdebstrap")
    os.makedirs(folder, exist_ok=True)
    told = _Told(progress)
    program = [PROGRAM, *arguments(base, int(time.time()), _prepared(base, folder))]
    try:
        with (
            TemporaryDirectory(prefix="vmctl-debian-") as place,
            stream(_reachable(folder, place, program), _environment(place), told.line, keep=[stage.lock]) as output,
        ):
            pieces = _Tree(output, lambda: epoch_s if epoch_s is not None else told.newest_s).pieces()
            layer = layers.from_tar(
                stage,
                from_iterator(pieces),
                progress=lambda size_bytes: progress(f"packages of {base.suite}: {format_size(size_bytes)} stored"),
            )
    except CommandError as error:
        raise UnavailableError(
            f"the packages of {base.suite} could not be installed: {_reason(error.output)}",
            hint="check the names of the packages and the network",
            detail=error.output,
        ) from None
    return Built(layer, epoch_s if epoch_s is not None else told.newest_s)


def key(base: Packages) -> list[object]:
    """Return what a base depends on, except the versions of packages: newer ones come only with --no-cache."""
    return ["packages", VERSION, *base, *sources(base)]


def _reachable(folder: str, place: str, program: list[str]) -> list[str]:
    """Return the arguments that run a program with `folder` mounted on `place`, in a separate mount namespace.

    apt fetches as the user _apt, who must reach the tree, and no other user of the host may: the state folder is
    closed, and the tree contains setuid programs.
    """
    script = 'umask 022; mount --bind "$0" "$1" && chmod 0711 "$1" && shift && exec "$@"'
    # pdeathsig: if vmctl is killed, it would run on for a minute and leave its tree behind
    return ["unshare", "--mount", "setpriv", "--pdeathsig", "TERM", "sh", "-c", script, folder, place, *program]


def _prepared(base: Packages, folder: str) -> list[str]:
    """Write the recipe's own files, and return the hooks that put them into the tree."""
    hooks = []
    for number, file in enumerate(base.files):
        source = os.path.join(folder, f"file-{number}")
        with open(source, "w", encoding="utf-8") as stream:
            stream.write(file.content)
        above = shlex.quote(os.path.dirname(file.name))
        hooks += [f'mkdir -p "$1"{above}', f"upload {shlex.quote(source)} {shlex.quote(file.name)}"]
    return [f"--essential-hook={hook}" for hook in hooks]


def arguments(base: Packages, begin_s: int, hooks: Sequence[str] = ()) -> list[str]:
    """Return the arguments of mmdebstrap(1)."""
    slim = () if base.documentation else _SLIM
    options = [*_DPKG_OPTIONS, *slim, *(f"path-exclude={pattern}" for pattern in base.exclude)]
    # files of packages have the packages' times, all others are newer than this command
    newest = (
        'find "$1" -xdev \\( -path "$1/var/lib/apt" -o -path "$1/var/cache" -o -path "$1/etc" \\) -prune -o -type f'
        f' ! -newermt @{begin_s} -printf "%T@\\n" | sort -n | tail -n 1 | sed "s/^/{_Told.MARK}/" >&2'
    )
    return [
        "--format=tar",
        f"--variant={base.variant}",
        f"--components={','.join(base.components)}",
        # otherwise `usrmerge`, a Perl program, is installed for a merge that is already done
        f"--include={','.join(('usr-is-merged', *base.include))}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt={option}" for option in options),
        *hooks,
        f"--customize-hook={newest}",
        base.suite,
        "-",
        *sources(base),
    ]


def sources(base: Packages) -> list[str]:
    """Return where the packages come from: the recipe's mirrors, or this host's sources of the same suite."""
    if base.mirrors or which("apt-get") is None:
        return list(base.mirrors)
    form = "$(REPO_URI) $(RELEASE) $(ORIGIN)"
    known = run(["apt-get", "indextargets", "--format", form, "Identifier: Packages"], check=False)[1].splitlines()
    wanted = (base.suite, f"{base.suite}-updates", f"{base.suite}-security")
    found = {}
    for line in known:
        address, release, *origin = line.split(" ")
        if release in wanted and origin == ["Debian"]:
            found[release] = f"deb {address} {release} {' '.join(base.components)}"
    return [found[release] for release in wanted if release in found] if base.suite in found else []


def _environment(folder: str) -> dict[str, str]:
    """Return the environment of the packages' scripts: nothing of this host, or the result would depend on it."""
    passed_on = ("http_proxy", "https_proxy", "no_proxy", "APT_CONFIG")
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": folder,
        **{name: os.environ[name] for name in passed_on if name in os.environ},
    }


def _reason(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith("E: ")]
    return (lines or output.strip().splitlines()[-1:] or ["no message"])[0].removeprefix("E: ")


class _Told:
    """The messages of mmdebstrap while it runs."""

    MARK = "vmctl-newest "

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self.newest_s = 0

    def line(self, text: str) -> None:
        """Take one line."""
        if text.startswith(self.MARK):
            self.newest_s = int(float(text.removeprefix(self.MARK)))
        elif text.startswith("I: "):
            self._progress(text.removeprefix("I: "))


class _Tree:
    """The tar of mmdebstrap, on its way into a layer."""

    def __init__(self, output: Output, epoch_s: Callable[[], int]) -> None:
        self._output = output
        self._epoch_s = epoch_s  # known when the tar begins
        self._seen: set[str] = set()

    def pieces(self) -> Iterator[bytes]:
        """Yield the tar of the layer."""
        self._first = self._output.read()
        self._newest_ns = self._epoch_s() * _NANO
        with tarfile.open(fileobj=cast(IO[bytes], self), mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
            yield from tarstream.tar(self._entries(tar))
        while self._output.read():  # to its end: a failure is reported there
            pass

    def read(self, size: int) -> bytes:
        """Return the next bytes of mmdebstrap's tar."""
        data, self._first = self._first[:size], self._first[size:]
        return data or self._output.read(size)

    def _entries(self, tar: tarfile.TarFile) -> Iterator[Entry]:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            path = info.name.removeprefix("./").rstrip("/")
            path = "" if path == "." else path
            if not _LEFT_OUT.fullmatch(path) and info.linkname not in _NO_TARGETS:
                self._seen.add(path)
                yield self._entry(tar, info, path)
        for path, content in (("etc/hosts", _HOSTS), ("etc/machine-id", b"")):
            if path not in self._seen:
                yield self._small(path, Attributes(stat.S_IFREG | 0o644, 0, 0, self._newest_ns), content)

    def _entry(self, tar: tarfile.TarFile, info: tarfile.TarInfo, path: str) -> Entry:
        node = tarstream.node(info)
        if info.islnk():
            to = info.linkname.removeprefix("./")
            return Entry(path, Node(self._dated(Attributes(stat.S_IFREG)), 0, 1), hard_link=to)
        if node is None:
            raise VmctlError(f"mmdebstrap's tar has an entry of an unknown type: {path}")
        attributes = self._dated(node.attributes)
        if path in _REWRITTEN:
            return self._small(path, attributes, _REWRITTEN[path](_content(tar, info), self._epoch_s()))
        return Entry(path, node._replace(attributes=attributes), lambda: _content(tar, info))

    def _small(self, path: str, attributes: Attributes, content: bytes | Iterator[bytes]) -> Entry:
        data = content if isinstance(content, bytes) else b"".join(content)
        return Entry(path, Node(attributes, len(data), 1), lambda: iter((data,)))

    def _dated(self, attributes: Attributes) -> Attributes:
        return attributes._replace(mtime_ns=min(attributes.mtime_ns, self._newest_ns))


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(info) if info.isreg() else None
    while file is not None and (data := file.read(_SMALL_BYTES)):
        yield data


def without_days(content: Iterator[bytes], epoch_s: int) -> bytes:
    """Return shadow(5) with the epoch as the day of the last change of each password."""
    fields = [line.split(b":") for line in b"".join(content).splitlines()]
    day = b"%d" % (epoch_s // _DAY_S)
    dated = [[*line[:2], day, *line[3:]] if len(line) > 3 and line[2].isdigit() else line for line in fields]
    return b"".join(b":".join(line) + b"\n" for line in dated)


_REWRITTEN: dict[str, Callable[[Iterator[bytes], int], bytes]] = {
    "etc/shadow": without_days,
    "etc/machine-id": lambda _content, _epoch_s: b"",
}
