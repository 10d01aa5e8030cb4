"""Platforms such as linux/arm64, as `--platform` takes them and as documents of OCI name them.

The names are those of Go (GOOS, GOARCH); the other spellings are those that containerd takes (its package platforms).
"""

from __future__ import annotations

from images.store.image import architecture
from vmctl.errors import SpecError
from vmctl.named import NamedTuple

_OTHER_SPELLINGS = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
_DEFAULT_VARIANTS = {"amd64": "v1", "arm64": "v8"}  # they mean the same as no variant


class Platform(NamedTuple):
    """An operating system and a kind of processor."""

    architecture: str
    os: str = "linux"
    variant: str = ""

    def __str__(self) -> str:
        """Return the platform in the form of `--platform`: `linux/arm/v7`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def is_host(self) -> bool:
        """Return whether images of this platform are for this host."""
        return self == parse("")


def parse(text: str) -> Platform:
    """Return the platform of a text such as `amd64`, `linux/arm64` or `linux/arm/v7`; "" is the host's platform.

    Raises SpecError.
    """
    parts = text.lower().split("/") if text else ["linux"]
    if parts == ["linux"]:
        return Platform(architecture())
    if len(parts) > 3 or not all(parts):
        raise SpecError(f"{text[:300]!r} is not a valid platform", hint="such as linux/amd64 or linux/arm/v7")
    system, kind, variant = (["linux", *parts, ""] if len(parts) == 1 else [*parts, ""])[:3]
    kind = _OTHER_SPELLINGS.get(kind, kind)
    return Platform(kind, system, "" if _DEFAULT_VARIANTS.get(kind) == variant else variant)
