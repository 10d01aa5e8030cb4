"""Names of images, as Docker's users know them, and the registry that a name refers to.

The grammar is that of github.com/distribution/reference; the short forms are Docker's: `web` means
`docker.io/library/web:latest`.
"""

from __future__ import annotations

import os
import re

from vmctl.errors import SpecError
from vmctl.named import NamedTuple

DOCKER_HUB, OFFICIAL = "docker.io", "library/"
LATEST = "latest"

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
_REGISTRY = re.compile(_HOST + r"(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_NAME_LENGTH_MAX = 255

# removed from the name of a file when it becomes the name of an image
_EXTENSIONS = (
    ".gz .tgz .xz .txz .zst .zstd .tzst .bz2 .tbz2 .tar .oci .docker .rootfs .qcow2 .qcow .img .raw .vmdk .vhdx".split()
)


class Reference(NamedTuple):
    """An image at a registry, selected by a tag or by a digest; the digest has precedence."""

    registry: str  # "docker.io", "localhost:5000"
    repository: str  # "library/web"
    tag: str = ""
    digest: str = ""

    @property
    def full(self) -> str:
        """The complete name, as skopeo takes it after `docker://`."""
        return f"{self.registry}/{self.repository}{'@' + self.digest if self.digest else ':' + self.tag}"

    @property
    def familiar(self) -> str:
        """The short form, which is the image's name in the store."""
        name = f"{self.registry}/{self.repository}"
        if self.registry == DOCKER_HUB:
            short = self.repository.removeprefix(OFFICIAL)
            # docker.io/host.example/web is not host.example/web
            name = short if _split(short) == (DOCKER_HUB, self.repository) else name
        if self.digest:
            return f"{name}@{self.digest}"
        return name if self.tag == LATEST else f"{name}:{self.tag}"

    @property
    def there(self) -> str:
        """The name without the registry: `web:1`."""
        return f"{self.repository.removeprefix(OFFICIAL)}{':' + self.tag if self.tag else '@' + self.digest}"

    def at(self, digest: str) -> Reference:
        """Return a reference to the image of that digest, with the same name."""
        return self._replace(digest=digest)


def parse(text: str) -> Reference:
    """Return the complete reference of a name. Raises SpecError if it is not the name of an image."""
    rest, _, digest = text.partition("@")
    folder, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    registry, repository = _split(folder + slash + last)
    _check(text, registry, repository, tag if colon else LATEST, digest)
    return Reference(registry, repository, "" if digest else tag or LATEST, digest)


def _split(name: str) -> tuple[str, str]:
    """Return the registry and the repository of a name without a tag."""
    first, slash, path = name.partition("/")
    registry, repository = DOCKER_HUB, name
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, repository = first, path
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository:
        repository = OFFICIAL + repository
    return registry, repository


def _check(text: str, registry: str, repository: str, tag: str, digest: str) -> None:
    wrong = ""
    if not _REGISTRY.fullmatch(registry):
        wrong = f"{registry!r} is not the name of a registry"
    elif repository != repository.lower():
        wrong = "only the tag can contain capital letters"
    elif not _REPOSITORY.fullmatch(repository) or len(repository) > _NAME_LENGTH_MAX:
        wrong = "a name consists of lowercase letters and digits, separated by . _ - and /"
    elif not _TAG.fullmatch(tag):
        wrong = "a tag consists of at most 128 letters, digits, _ . and -"
    elif "@" in text and not _DIGEST.fullmatch(digest):
        wrong = "a digest is sha256: followed by 64 hexadecimal digits"
    if wrong:
        raise SpecError(
            f"{text[:300]!r} is not the name of an image: {wrong}",
            hint="use a name such as web, web:1.2 or host:5000/web:1.2",
        )


def familiar(text: str) -> str:
    """Return the short form of a name. Raises SpecError."""
    return parse(text).familiar


def of_new_image(text: str) -> str:
    """Return the short form of a name for an image that is made here. Raises SpecError, also for a digest.

    Only a registry's answer can show that an image has the digest in its name.
    """
    found = parse(text)
    if found.digest:
        raise SpecError(
            f"{text[:300]!r} contains a digest, so it cannot name a new image", hint="use a name such as web or web:1.2"
        )
    return found.familiar


def from_file(path: str) -> str:
    """Return the name of an image made from a file or folder: `/tmp/My Web.tar.gz` gives `my-web`."""
    name = os.path.basename(os.path.abspath(path)).lower()
    while True:
        stem, extension = os.path.splitext(name)
        if extension not in _EXTENSIONS or not stem:
            break
        name = stem
    words = re.findall(r"[a-z0-9]+(?:[._][a-z0-9]+)*", name)
    return "-".join(words)[:_NAME_LENGTH_MAX] or "image"


def in_layout(ref_name: str, path: str) -> str:
    """Return the short name of an image that a layout at `path` lists as `ref_name`.

    A word without `/` and `:` is only the tag, as in skopeo's and umoci's `oci:web:1.2`; then the name is made from the
    file's name, and so it is if `ref_name` is empty or not a valid name.
    """
    try:
        if not ref_name:
            return from_file(path)
        if re.search("[/:@]", ref_name):
            return of_new_image(ref_name)
        return familiar(f"{from_file(path)}:{ref_name}")
    except SpecError:
        return from_file(path)
